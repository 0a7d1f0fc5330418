// Saves and loads TensorFlow.js models as files: its pure JavaScript build has no file:// handler on Node.

import fs from 'node:fs';
import path from 'node:path';

/** Saves like tfjs-node's file://: model.json, and all weights in weights.bin beside it. */
export function fileSaver(tf, folder) {
  return tf.io.withSaveHandler(async ({weightData, weightSpecs, ...model}) => {
    fs.mkdirSync(folder, {recursive: true});
    fs.writeFileSync(path.join(folder, 'weights.bin'), Buffer.from(weightData));
    model.weightsManifest = [{paths: ['weights.bin'], weights: weightSpecs}];
    fs.writeFileSync(path.join(folder, 'model.json'), JSON.stringify(model));
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  });
}

/** Loads like tfjs-node's file://: the shards of the manifest, in order. */
export function fileLoader(tf, file) {
  const {weightsManifest, ...model} = JSON.parse(fs.readFileSync(file, 'utf8'));
  const shards = weightsManifest.flatMap(({paths}) => paths);
  const bytes = Buffer.concat(shards.map((shard) => fs.readFileSync(path.join(path.dirname(file), shard))));
  model.weightSpecs = weightsManifest.flatMap(({weights}) => weights);
  model.weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return tf.io.fromMemory(model);
}
