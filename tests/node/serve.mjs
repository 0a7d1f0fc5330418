// TensorFlow.js for the tests, on WebAssembly, which takes a third of the time of plain JavaScript. It reads one JSON
// object per line, and answers each with a line.
//
//   {model, randomize, compile, outputs, bytes, train, save}
//
// model:     {tutorial: true}, {layers: [[kind, options], ...]} with TensorFlow.js' names, {load: "model.json"}, or
//            {code: "the body of a function of tf that returns a model"}
// randomize: sets all weights to noise of this scale, the same in every run, so that no bias is zero
// compile:   arguments of model.compile; optimizer may be [name of a tf.train function, ...arguments]
// outputs:   inputs whose outputs are returned as `outputs`, and after training as `trained`
// bytes:     {values, shape} of a Uint8Array, from which TensorFlow.js makes an int32 tensor; its outputs are `ofBytes`
// train:     {x, y, batchSize, steps}: batches in order, repeated from the first; `losses` are returned
// save:      {folder, includeOptimizer}, after training
//
// The model of the last request is kept: {model: {last: true}} uses it again.

import fs from 'node:fs';
import readline from 'node:readline';

import {fileLoader, fileSaver} from './model_files.mjs';
import {loadTensorFlow} from './tfjs_load.mjs';
import {tutorialModel} from './tutorial.mjs';

let last = null;

function reply(values) {
  fs.writeSync(1, JSON.stringify(values) + '\n');
}

function makeLayer(tf, [kind, options]) {
  const nested = options.layer ? {layer: makeLayer(tf, options.layer)} : {};
  return tf.layers[kind]({...options, ...nested});
}

async function makeModel(tf, {tutorial, layers, load, code}) {
  if (tutorial) return tutorialModel(tf);
  if (load) return tf.loadLayersModel(fileLoader(tf, load));
  if (code) return new Function('tf', code)(tf);
  if (layers) return tf.sequential({layers: layers.map((layer) => makeLayer(tf, layer))});
  return last;
}

function randomize(tf, model, size) {
  const noise = (weight, index) => tf.randomNormal(weight.shape, 0, size, 'float32', index + 1);
  model.setWeights(model.getWeights().map(noise));
}

function compile(tf, model, {optimizer, ...more}) {
  const [name, ...options] = [optimizer].flat();
  model.compile({optimizer: options.length ? tf.train[name](...options) : name, ...more});
}

async function train(tf, model, {x, y, batchSize, steps}) {
  const inputs = tf.tensor(x);
  const targets = tf.tensor(y);
  const batches = x.length / batchSize;
  const losses = [];
  for (let step = 0; step < steps; ++step) {
    const begin = batchSize * (step % batches);
    const found = await model.trainOnBatch(inputs.slice(begin, batchSize), targets.slice(begin, batchSize));
    losses.push([found].flat()[0]);
  }
  return losses;
}

const predict = (tf, model, x) => tf.tidy(() => model.predict(tf.tensor(x)).arraySync());

async function answer(tf, request) {
  const model = last = await makeModel(tf, request.model);
  const found = {};
  if (request.randomize) randomize(tf, model, request.randomize);
  if (request.compile) compile(tf, model, request.compile);
  if (request.outputs) found.outputs = predict(tf, model, request.outputs);
  if (request.bytes) {
    const {values, shape} = request.bytes;
    found.ofBytes = tf.tidy(() => model.predict(tf.tensor(Uint8Array.from(values), shape)).arraySync());
  }
  if (request.train) {
    found.losses = await train(tf, model, request.train);
    if (request.outputs) found.trained = predict(tf, model, request.outputs);
  }
  if (request.save) await model.save(fileSaver(tf, request.save.folder), request.save);
  return found;
}

const tf = await loadTensorFlow('wasm');
for await (const line of readline.createInterface({input: process.stdin})) {
  try {
    reply(await answer(tf, JSON.parse(line)));
  } catch (error) {
    reply({error: String(error.message)});
  }
}
