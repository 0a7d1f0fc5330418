// TensorFlow.js on Node, with the protocol of serve.py: node tfjs.mjs cpu|wasm
//
// Its GRU supports reset_after=false only, so it is compared with that form. Gates are sigmoids as in all contenders;
// the tutorial's hard sigmoid takes about the same time.

import fs from 'node:fs';
import readline from 'node:readline';

import {loadTensorFlow} from '../../tests/node/tfjs_load.mjs';

const STEPS_COMPARED = 3;

function reply(values) {
  fs.writeSync(1, JSON.stringify(values) + '\n');
}

/** Reads tensors by name from a safetensors file: eight bytes of length, a JSON header, the data. */
function readTensors(tf, file) {
  const bytes = fs.readFileSync(file);
  const begin = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, begin).toString());
  const tensors = {};
  for (const [name, {dtype, shape, data_offsets: [from, to]}] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const part = bytes.buffer.slice(bytes.byteOffset + begin + from, bytes.byteOffset + begin + to);
    tensors[name] = dtype === 'F32' ? tf.tensor(new Float32Array(part), shape) : tf.tensor(new Int32Array(part), shape, 'int32');
  }
  return tensors;
}

/** Writes float32 tensors to a safetensors file. */
function writeTensors(file, tensors) {
  const header = {};
  const parts = [];
  let end = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    const part = Buffer.from(tensor.dataSync().buffer.slice(0, 4 * tensor.size));
    header[name] = {dtype: 'F32', shape: tensor.shape, data_offsets: [end, end += part.length]};
    parts.push(part);
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  fs.writeFileSync(file, Buffer.concat([length, json, ...parts]));
}

function makeModel(tf, data, training) {
  const [, steps, features] = data.x.shape;
  const units = data.recurrent_kernel.shape[0];
  const classes = data.head_bias.size;
  const model = tf.sequential();
  model.add(tf.layers.gru({units, inputShape: [steps, features], recurrentActivation: 'sigmoid'}));
  const weights = [data.kernel, data.recurrent_kernel, data.bias.slice([0, 0], [1, -1]).flatten()];
  if (training) {
    model.add(tf.layers.dense({units: classes, activation: 'softmax'}));
    weights.push(data.head_kernel, data.head_bias);
    model.compile({optimizer: 'adam', loss: 'categoricalCrossentropy'});
  }
  model.setWeights(weights);
  return model;
}

/** Returns the gradients that trainOnBatch uses, for comparison. */
function gradients(tf, model, x, labels) {
  const variables = model.trainableWeights.map((weight) => weight.val);
  const loss = () => tf.neg(tf.mean(tf.sum(tf.mul(labels, tf.log(model.apply(x, {training: true}))), -1)));
  const found = tf.variableGrads(loss, variables).grads;
  const names = ['d_kernel', 'd_recurrent_kernel', 'd_bias', 'd_head_kernel', 'd_head_bias'];
  return Object.fromEntries(names.map((name, i) => [name, found[variables[i].name]]));
}

async function build(tf, request) {
  const data = readTensors(tf, request.data);
  const training = request.question === 'training';
  const model = makeModel(tf, data, training);
  if (!training) {
    const forward = () => tf.tidy(() => model.apply(data.x));
    const run = async () => {
      const state = forward();
      await state.data();  // waits for the result
      state.dispose();
    };
    return {answers: {state: forward()}, run};
  }
  const labels = tf.oneHot(data.labels, data.head_bias.size).toFloat();
  const answers = gradients(tf, model, data.x, labels);
  const run = () => model.trainOnBatch(data.x, labels);
  const losses = [];
  for (let i = 0; i < STEPS_COMPARED; ++i) losses.push(await run());
  return {answers: {...answers, losses_pytorch: tf.tensor(losses)}, run};
}

async function timed(run, repeats) {
  const once = async () => {
    const begin = performance.now();
    for (let i = 0; i < repeats; ++i) await run();
    return (performance.now() - begin) / 1000 / repeats;
  };
  await once();  // warm-up
  return once();
}

const backend = process.argv[2];
let tf;
try {
  tf = await loadTensorFlow(backend);
} catch (error) {
  reply({missing: error.message.split('\n')[0]});
  process.exit(0);
}
reply({versions: {tfjs: tf.version.tfjs, node: process.versions.node}});
let task = null;
for await (const line of readline.createInterface({input: process.stdin})) {
  const request = JSON.parse(line);
  if (request.do === 'quit') break;
  try {
    if (request.do === 'memory') {
      reply({bytes: 1024 * process.resourceUsage().maxRSS});
    } else if (request.do === 'setup') {
      tf.disposeVariables();
      task = await build(tf, request);
      writeTensors(request.results, task.answers);
      reply({results: request.results});
    } else {
      const seconds = await timed(task.run, request.repeats);
      reply({seconds, repeat: seconds});
    }
  } catch (error) {
    reply({error: String(error.message).slice(0, 500)});
  }
}
process.exit(0);
