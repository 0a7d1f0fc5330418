// Loads TensorFlow.js from FASTGRU_NODE_MODULES, or from node_modules beside this file; the backend is "cpu" or "wasm".

import {createRequire} from 'node:module';
import path from 'node:path';
import {fileURLToPath} from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = process.env.FASTGRU_NODE_MODULES || path.join(here, 'node_modules');
const require = createRequire(path.join(path.resolve(modules), 'x.cjs'));

export async function loadTensorFlow(backend) {
  console.log = console.info = console.warn = console.error;  // standard output is for results only
  const tf = require('@tensorflow/tfjs');
  if (backend === 'wasm') require('@tensorflow/tfjs-backend-wasm');  // on Node: SIMD, one thread
  if (!await tf.setBackend(backend)) throw new Error(`TensorFlow.js has no backend ${backend} here`);
  await tf.ready();
  return tf;
}
