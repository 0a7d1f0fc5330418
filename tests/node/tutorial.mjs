// The tutorial's model, in the tutorial's form.

export function tutorialModel(tf) {
  const model = tf.sequential();
  model.add(tf.layers.gru({units: 64, inputShape: [28, 28]}));
  model.add(tf.layers.dense({units: 10, activation: 'softmax'}));
  model.compile({optimizer: 'adam', loss: 'categoricalCrossentropy', metrics: ['accuracy']});
  return model;
}
