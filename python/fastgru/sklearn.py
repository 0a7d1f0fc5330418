"""Estimators for scikit-learn: `GRUClassifier` and `GRURegressor`, for pipelines, cross-validation and grid search.

They require scikit-learn (``pip install scikit-learn``), so ``import fastgru`` does not import them. Use
``from fastgru.sklearn import GRUClassifier``.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state, check_X_y, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fastgru import callbacks
from fastgru._support import checks
from fastgru._support.sequences import check_lengths, pad_with_lengths
from fastgru.models.recipes import Recipe, Settings

Array = NDArray[Any]

__all__ = ["GRUClassifier", "GRURegressor"]


def _how_to_reshape(X: Array) -> str:
    """Name the call that makes sequences of an array of another shape."""
    if X.ndim == 2:
        return "write X.reshape(len(X), T, F) if each row is a sequence, or X[..., None] if it has one number per step"
    return "reshape it"


# As scikit-learn requires, the dataclass' constructor has named parameters and only stores them.
@dataclass(eq=False, repr=False)
class _GRUEstimator(BaseEstimator, Settings):  # type: ignore[misc]  # scikit-learn has no types
    _: KW_ONLY
    epochs: int = 20
    validation_split: float = 0.0
    patience: int | None = None
    random_state: Any = None
    verbose: int = 0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """Return the estimator tags in the form that scikit-learn used before 1.6."""
        return {"X_types": ["3darray"]}

    # --- Checks ----------------------------------------------------------------------------------------------

    def _pad(self, X: Any, lengths: Any) -> tuple[Any, Any]:
        """Return X as one array, with the lengths of its sequences if they differ."""
        checks.unmasked("X", X)  # scikit-learn ignores the mask
        ragged = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
        if not ragged and not isinstance(X, (list, tuple)):
            return X, lengths
        if lengths is not None:
            raise ValueError("lengths: expected None because X is a list of sequences, which defines them, got lengths")
        try:
            padded, found = pad_with_lengths(X)
        except ValueError as error:
            raise ValueError(f"X: {error}") from None
        return padded, None if (found == padded.shape[1]).all() else found

    def _require_sequences(self, X: Array, *, fitting: bool) -> Array:
        """Return X if its shape is (N, T, F), with the F of `fit`."""
        if X.ndim != 3 or 0 in X.shape:
            raise ValueError(
                f"X: expected shape (N, T, F), sequences of T steps of F numbers, or a list of arrays (T, F), got "
                f"{X.shape}; {_how_to_reshape(X)}"
            )
        features = X.shape[2]
        if fitting:
            self.n_features_in_ = features
        elif features != self.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(self).__name__} is expecting {self.n_features_in_} features as "
                f"input"
            )
        return X

    def _check_pair(self, X: Any, y: Any, lengths: Any, **options: Any) -> tuple[Array, Array, Array | None]:
        """Return checked sequences, targets and lengths for `fit`."""
        checks.unmasked("y", y)
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None")
        X, lengths = self._pad(X, lengths)
        X, y = check_X_y(X, y, dtype="numeric", ensure_2d=False, allow_nd=True, estimator=self, **options)
        X = self._require_sequences(X, fitting=True)
        return X, y, None if lengths is None else check_lengths("lengths", lengths, len(X), X.shape[1])

    # --- Training and prediction -----------------------------------------------------------------------------

    def _fit(
        self,
        X: Array,
        y: Array,
        lengths: Array | None,
        sample_weight: Any,
        *,
        outputs: int,
        class_weight: dict[int, float] | None = None,
    ) -> None:
        """Create a model for checked data and train it. For a classifier, `y` contains class indices (int64)."""
        classify = isinstance(self, ClassifierMixin)
        recipe = Recipe(**{each.name: getattr(self, each.name) for each in fields(Settings)})
        split = checks.number("validation_split", self.validation_split, least=0, below=1)
        chosen = []
        if self.patience is not None:
            chosen.append(callbacks.EarlyStopping(patience=self.patience, restore_best_weights=True))
            if not split:
                raise ValueError("patience: expected None because validation_split is 0, got a number of epochs")
        random = check_random_state(self.random_state)
        weights = None if sample_weight is None else checks.array("sample_weight", sample_weight)
        if weights is not None and weights.shape != (len(X),):
            raise ValueError(f"sample_weight: expected shape ({len(X)},), one for each sequence, got {weights.shape}")
        if weights is not None and not weights.any():
            raise ValueError("sample_weight: expected at least one that is not zero, got only zeros")
        given = {"x": X, "y": y, "lengths": lengths, "sample_weight": weights}
        data: dict[str, Any] = {name: array for name, array in given.items() if array is not None}
        held: Any = 0.0
        if split:  # at random, unlike the last samples in Keras, because data is often sorted by class
            _, held = train_test_split(
                np.arange(len(X)), test_size=split, random_state=random, stratify=y if classify else None
            )

        model = recipe.make_model(
            (None, None, X.shape[2]),
            outputs,
            classify=classify,
            samples=len(X) - (len(held) if split else 0),
            # random_state is the seed; fastgru's own seed is global.
            generator=np.random.default_rng(random.randint(np.iinfo(np.int32).max)),
        )
        history = model.fit(
            **data,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            class_weight=class_weight,
            validation_split=held,
            callbacks=chosen,
            verbose=self.verbose,
        )
        self.model_ = model
        self.history_ = history.history

    def _outputs(self, X: Any, lengths: Any) -> Array:
        """Return the model's output for the sequences, (N, C)."""
        check_is_fitted(self)
        X, lengths = self._pad(X, lengths)
        X = check_array(X, dtype="numeric", ensure_2d=False, allow_nd=True, estimator=self)
        X = self._require_sequences(X, fitting=False)
        return np.asarray(self.model_.predict(X, lengths=lengths))


@dataclass(eq=False, repr=False)
class GRUClassifier(ClassifierMixin, _GRUEstimator):  # type: ignore[misc]
    """Classifier for sequences: GRU layers and a softmax layer.

    X is an array (N, T, F) of real numbers, or a list of arrays (T, F) of different lengths T, which are padded.
    Numbers are converted to `dtype` batch by batch, but not scaled: divide the bytes of images by 255 first.

    Parameters
    ----------
    units : int or tuple of int
        Number of units of each GRU layer.
    bidirectional : bool
        Whether the layers are bidirectional.
    dropout, recurrent_dropout : float
        Fractions of the inputs and of the state of each GRU layer to drop in training, from 0 to below 1.
    dtype : {"float32", "float64"}
        The dtype of weights and computations.
    epochs : int
        Number of passes over the training sequences.
    batch_size : int
        Number of sequences per update of the weights.
    optimizer : {"adam", "adamw", "sgd", "rmsprop"}
        The optimizer, with Keras' default options.
    learning_rate : float, optional
        The peak learning rate of the schedule. Default: the optimizer's default.
    schedule : {"constant", "cosine", "onecycle", "exponential"}
        The learning rate during training. ``"cosine"``: it decays to 0 along half a cosine. ``"onecycle"``: it rises
        during the first 30 % of the updates, then falls (`fastgru.schedules.OneCycle`). ``"exponential"``: it decays
        exponentially to a hundredth.
    weight_decay : float, optional
        Weight decay of AdamW. Default: the optimizer's default.
    clip_norm : float, optional
        Maximum norm of the gradient; longer gradients are scaled down to it.
    validation_split : float
        Fraction of the sequences to hold out for validation, from 0 to below 1. They are drawn at random, stratified
        by class. `history_` contains their loss and accuracy with the prefix ``val_``.
    patience : int, optional
        Stop when the validation loss has not improved for this many epochs, and restore the best weights.
    class_weight : dict or "balanced", optional
        Factors of the losses by class label; "balanced" makes them inversely proportional to the class frequencies.
    random_state : int, RandomState or None
        With an int, each `fit` gives bit-identical results.
    verbose : {0, 1, 2}
        As in `fastgru.Sequential.fit`.

    Attributes
    ----------
    classes_ : ndarray (C,)
        The labels, sorted.
    n_features_in_ : int
        Number of features F.
    history_ : dict of str to list of float
        ``loss`` and ``accuracy`` per epoch.
    model_ : fastgru.Sequential
        The trained model.

    Examples
    --------
    >>> classifier = GRUClassifier(32, epochs=10, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X_new)
    """

    _: KW_ONLY
    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> GRUClassifier:
        """Train a new model.

        Parameters
        ----------
        X : array_like (N, T, F), or list of array_like (T, F)
        y : array_like (N,)
            Labels of any type, of at least two classes.
        sample_weight : array_like (N,), optional
            Factors of the sequences' losses. The sum of the weighted losses is divided by the number of sequences.
        lengths : array_like (N,) of integers, optional
            Number of valid steps of each sequence. Later steps are padding: they must be finite and are ignored.

        Returns
        -------
        GRUClassifier
            The fitted estimator.
        """
        X, y, lengths = self._check_pair(X, y, lengths)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {self.classes_[0]!r}")
        factors = None
        if self.class_weight is not None:
            found = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            factors = {
                index: checks.number(f"class_weight[{label!r}]", factor, least=0)
                for index, (label, factor) in enumerate(zip(self.classes_.tolist(), found.tolist(), strict=True))
            }
        self._fit(X, labels, lengths, sample_weight, outputs=len(self.classes_), class_weight=factors)
        return self

    def predict_proba(self, X: Any, lengths: Any = None) -> Array:
        """Return probabilities (N, C) in the order of `classes_`."""
        return self._outputs(X, lengths)

    def predict(self, X: Any, lengths: Any = None) -> Array:
        """Return the most probable labels (N,)."""
        best = self._outputs(X, lengths).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """Return the accuracy.

        In cross-validation pass ``params={"lengths": lengths}``; `fit` then receives the lengths of its sequences.
        `score` receives them if scikit-learn's metadata routing is enabled and requested with
        ``set_fit_request(lengths=True)`` and ``set_score_request(lengths=True)``. Lists of sequences need neither.
        """
        return float(accuracy_score(y, self.predict(X, lengths), sample_weight=sample_weight))


class GRURegressor(RegressorMixin, _GRUEstimator):  # type: ignore[misc]
    """Regressor for sequences: GRU layers and a linear layer, trained with the mean squared error.

    Targets are not scaled. If their mean is far from 0 or their scale far from 1, wrap the estimator in
    `sklearn.compose.TransformedTargetRegressor`.

    Parameters
    ----------
    units, bidirectional, dropout, recurrent_dropout, dtype, epochs, batch_size, optimizer, learning_rate, schedule
        As in `GRUClassifier`.
    weight_decay, clip_norm : float, optional
        As in `GRUClassifier`.
    validation_split : float
        Fraction of the sequences to hold out for validation, drawn at random, from 0 to below 1. `history_` contains
        their loss and mean absolute error with the prefix ``val_``.
    patience, random_state, verbose
        As in `GRUClassifier`.

    Attributes
    ----------
    n_features_in_ : int
        Number of features F.
    history_ : dict of str to list of float
        ``loss`` and ``mean_absolute_error`` per epoch.
    model_ : fastgru.Sequential
        The trained model.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> dict[str, Any]:
        return {**super()._more_tags(), "multioutput": True}

    def fit(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> GRURegressor:
        """Train a new model.

        Parameters
        ----------
        X : array_like (N, T, F), or list of array_like (T, F)
        y : array_like (N,) or (N, C)
            One or C targets per sequence.
        sample_weight, lengths
            As in `GRUClassifier.fit`.

        Returns
        -------
        GRURegressor
            The fitted estimator.
        """
        X, y, lengths = self._check_pair(X, y, lengths, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        self._target_dtype = y.dtype if y.dtype.kind == "f" else np.dtype(np.float64)
        self._fit(X, y, lengths, sample_weight, outputs=1 if self._flat else y.shape[1])
        return self

    def predict(self, X: Any, lengths: Any = None) -> Array:
        """Return predictions (N,) or (N, C), in the shape of the targets of `fit`."""
        outputs = self._outputs(X, lengths).astype(self._target_dtype, copy=False)
        return outputs[:, 0] if self._flat else outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """Return the coefficient of determination, R²."""
        return float(r2_score(y, self.predict(X, lengths), sample_weight=sample_weight))
