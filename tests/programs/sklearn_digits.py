"""scikit-learn: choose the batch size of a classifier of digits by a grid search, and print its report."""

# imports
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier as Classifier

# program
images, labels = load_digits(return_X_y=True)
images, labels = images[:600], labels[:600]
x, x_test, y, y_test = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)

search = GridSearchCV(Classifier(random_state=0), {"batch_size": [16, 32]}, cv=2)
search.fit(x, y)
best = search.best_estimator_
scores = cross_val_score(best, x, y, cv=2)
predictions = best.predict_proba(x_test)
score = best.score(x_test, y_test)
report = classification_report(y_test, best.predict(x_test))
