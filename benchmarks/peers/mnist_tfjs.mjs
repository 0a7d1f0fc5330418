// The tutorial's program in TensorFlow.js on Node, on the first images only: node mnist_tfjs.mjs BACKEND FOLDER IMAGES
//
// Prints the seconds of `fit` for one epoch of these images, after a warm-up epoch.

import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';

import {loadTensorFlow} from '../../tests/node/tfjs_load.mjs';
import {tutorialModel} from '../../tests/node/tutorial.mjs';

const [backend, folder, count] = process.argv.slice(2);
const images = Number(count);
const tf = await loadTensorFlow(backend);

function read(name, header, bytes) {
  return zlib.gunzipSync(fs.readFileSync(path.join(folder, name))).subarray(header, header + bytes);
}

const pixels = Float32Array.from(read('train-images-idx3-ubyte.gz', 16, images * 784), (byte) => byte / 255);
const labels = Int32Array.from(read('train-labels-idx1-ubyte.gz', 8, images));
const x = tf.tensor(pixels, [images, 28, 28]);
const y = tf.oneHot(tf.tensor1d(labels, 'int32'), 10);

const model = tutorialModel(tf);
await model.fit(x.slice(0, 32), y.slice(0, 32), {epochs: 1, verbose: 0});
const begin = performance.now();
await model.fit(x, y, {epochs: 1, verbose: 0});
fs.writeSync(1, JSON.stringify({seconds: (performance.now() - begin) / 1000}) + '\n');
process.exit(0);
