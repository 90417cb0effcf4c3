"""Train the network that `network.kind` names.

    dvc repro train
    dvc exp run -S train.epochs=3 -S network.kind=mlp

The stage reads the training images in `data/idx/`, `data/handwriting/`, `data/drawn_digits/` and
`data/non_digits/`, and `network` and `train` in params.yaml. It writes `data/network/`
(architecture and weights) and `data/training/` (loss and accuracy after each epoch). An interrupted
run resumes after its last whole epoch.

Several workers train the same network as one, except for rounding: each replica computes the
losses of its own rows of a batch, and the replicas sum their gradients.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from dvclive import Live
from tqdm import tqdm

from stages.common import (
    checkpoint,
    determinism,
    distribute,
    idx,
    metrics,
    network,
    params,
    paths,
    photometric,
)
from stages.common.augment import background, distort, transforms
from stages.common.checkpoint import Figures
from stages.common.idx import Split
from stages.common.outputs import atomic_directory
from stages.common.runner import StageError

STEPS_PER_CALL = 25  # steps in one call of TensorFlow; the progress bar moves after each call

NO_LABEL = -1  # the label of an image that is not a digit

# AutoGraph converts loops and branches that depend on tensors. In functions without any, its search
# takes 2 s.
unconverted = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Mixture:
    """The images of all kinds, and the order in which the training uses them."""

    images: np.ndarray  # uint8 (N, 28, 28)
    labels: np.ndarray  # int32 (N,), or NO_LABEL
    order: np.ndarray  # int32 (steps, images in a step): indices


def train(
    model: keras.Model,
    training: Split,
    validation: Split,
    recipe: params.Recipe,
    epochs: int,
    seed: int,
    after_epoch: Callable[[Figures], None],
    key: np.ndarray | None = None,
    handwriting: Split = idx.NONE,
    drawn_digits: Split = idx.NONE,
    non_digits: np.ndarray = idx.NONE[0],
) -> keras.Model:
    """Train a network on all replicas of the `tf.distribute` strategy in whose scope it was built.

    Args:
        model: The network, from pixels (N, 28, 28) to logits (N, 10). Its weights change.
        training: The images to train on, uint8 (N, 28, 28), and their labels, uint8 (N,).
        validation: The images to measure on after each epoch, in the same form.
        recipe: The hyperparameters.
        epochs: The number of passes over `training`.
        seed: The seed of the order of the images and of their augmentation.
        after_epoch: The function that the chief calls after each epoch. Its argument contains
            `train/loss`, `train/accuracy`, `validation/loss` and `validation/accuracy`. The
            training metrics are means over the steps of the epoch, on augmented images.
        key: The result of `checkpoint.key`, or None. With a key, the run saves checkpoints and
            resumes from a checkpoint that has this key.
        handwriting: More images to train on, of which each batch has the fraction
            `recipe.handwriting_fraction`.
        drawn_digits: More images to train on, with the fraction `recipe.drawn_digit_fraction`.
        non_digits: Images without a digit, uint8 (N, 28, 28), to add to each batch.

    Returns:
        A network whose weights are the moving average of the weights of `model`. It does not
        belong to the strategy.

    Raises:
        StageError: The images do not fill a batch, a batch has fewer images than there are
            replicas, or the loss is not finite.
    """
    batch = recipe.batch_size
    mixture = _mix(training, handwriting, drawn_digits, non_digits, recipe, epochs, seed)
    steps = len(mixture.order) // epochs  # steps in an epoch
    # As of TensorFlow 2.21, the graph optimizer would replace x / sqrt(y) by x * rsqrt(y), which
    # processors approximate.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if batch < replicas:
        raise StageError(f"batch_size is {batch}, but there are {replicas} replicas to share it")
    chief = distribute.is_chief(strategy)
    average = keras.models.clone_model(model)
    average.set_weights(model.get_weights())
    _synchronize(model, replicas)
    with strategy.scope():
        optimizer = _optimizer(recipe, epochs * steps, model)
    state = [*model.variables, *average.variables, *optimizer.variables]
    history: list[Figures] = []  # figures of the finished epochs; empty except on the chief
    before = 0  # epochs that the interrupted run finished
    if key is not None:
        before, history = checkpoint.restore(key, state, strategy)
    for figures in history:
        after_epoch(figures)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: _batches(mixture, recipe, seed, before * steps, context)
        )
    )
    batch_images = mixture.order.shape[1] + _background_count(recipe)
    advance = _stepper(model, average, optimizer, recipe, batch_images, batches)

    silent = None if chief else True  # with None, tqdm shows the bar on a terminal only
    with tqdm(total=epochs * steps, initial=before * steps, unit="step", disable=silent) as bar:
        for epoch in range(before + 1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}")
            loss, hits, done = 0.0, 0, 0
            while done < steps:
                count = min(STEPS_PER_CALL, steps - done)
                call_loss, call_hits = advance(tf.constant(count))
                loss, hits, done = loss + float(call_loss), hits + int(call_hits), done + count
                figures = {"train/loss": loss / done, "train/accuracy": hits / (done * batch)}
                bar.set_postfix(loss=f"{loss / done:.4f}", accuracy=f"{hits / (done * batch):.4f}")
                bar.update(count)
            if not np.isfinite(loss):
                raise StageError(f"the loss of epoch {epoch} is {loss}; lower the learning_rate")
            if not chief:
                continue
            probabilities = network.probabilities(average, validation[0])
            figures["validation/loss"] = metrics.cross_entropy(probabilities, validation[1])
            figures["validation/accuracy"] = metrics.accuracy(probabilities, validation[1])
            after_epoch(figures)
            history.append(figures)
            if key is not None:
                checkpoint.save(key, state, history)
    return average


def _synchronize(model: keras.Model, replicas: int) -> None:
    """Let batch normalization use the statistics of the whole batch."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = replicas > 1


def _stepper(
    model: keras.Model,
    average: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: params.Recipe,
    batch_images: int,
    batches: Iterator[tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Create a function that runs a number of training steps in one call of TensorFlow.

    The function returns the sum of the losses of the steps, and the number of images that the
    network recognized correctly.
    """
    strategy = model.distribute_strategy

    @unconverted
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Run one step on one replica."""
        targets = tf.where((labels == NO_LABEL)[:, tf.newaxis], 0.1, tf.one_hot(labels, 10))
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, model.compute_dtype), training=True)
            losses = _cross_entropy(logits, tf.cast(targets, logits.dtype))
            loss = tf.reduce_sum(losses) / batch_images
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums the gradients of all replicas
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.int32))
        return loss, hits

    @unconverted
    def update_average() -> None:
        """Update the moving average of the weights.

        In the first steps, the average covers only about a tenth of the steps so far.
        """
        done = tf.cast(optimizer.iterations.value, model.compute_dtype)
        decay = tf.minimum(done / (10 + done), recipe.ema_decay)
        for mean, value in zip(average.variables, model.variables, strict=True):
            mean.value.assign_add((value.value - mean.value) * (1 - decay))

    @tf.function
    def advance(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, hits = tf.zeros([], model.compute_dtype), 0
        for _ in tf.range(count):
            loss, hit = strategy.run(step, args=next(batches))
            losses += strategy.reduce("SUM", loss, axis=None)
            hits += strategy.reduce("SUM", hit, axis=None)
            update_average()
        return losses, hits

    return advance


@tf.custom_gradient
def _cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Compute the cross-entropy with a true division, as `network.probabilities` does.

    Args:
        logits: float (N, 10).
        targets: The probability of each label, float (N, 10).

    Returns:
        The loss of each image, float (N,), and the function of its gradient.
    """
    shifted = logits - tf.reduce_max(logits, 1, keepdims=True)
    exponentials = tf.exp(shifted)
    sums = tf.reduce_sum(exponentials, 1, keepdims=True)
    losses = tf.reduce_sum(targets * (tf.math.log(sums) - shifted), 1)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream[:, tf.newaxis] * (exponentials / sums - targets), None

    return losses, gradient


def _optimizer(recipe: params.Recipe, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """Create an AdamW optimizer with a linear warm-up, then a cosine decay of the rate to 0.

    AdamW is from Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Weight decay
    does not apply to biases and to the parameters of batch normalization.
    """
    warmup = round(steps * recipe.warmup_fraction)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=steps - warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    return optimizer


def _mix(
    training: Split,
    handwriting: Split,
    drawn_digits: Split,
    non_digits: np.ndarray,
    recipe: params.Recipe,
    epochs: int,
    seed: int,
) -> Mixture:
    """Mix the images of all kinds, as `train` describes them.

    Raises:
        StageError: The images do not fill a batch.
    """
    added = [
        (handwriting, recipe.handwriting_fraction),
        (drawn_digits, recipe.drawn_digit_fraction),
        ((non_digits, np.full(len(non_digits), NO_LABEL)), recipe.non_digit_fraction),
    ]
    shares = [
        round(recipe.batch_size * fraction) if len(images) else 0 for (images, _), fraction in added
    ]
    share = recipe.batch_size - shares[0] - shares[1]  # the non-digits are in addition to a batch
    if share < 1:
        raise StageError(
            f"batch_size is {recipe.batch_size}, and handwriting_fraction and "
            "drawn_digit_fraction leave no place in a batch for other images; lower them"
        )
    sizes = [len(training[1]), *(len(images) for (images, _), _ in added)]
    steps = sizes[0] // share  # steps in an epoch
    if steps == 0:
        raise StageError(
            f"batch_size is {recipe.batch_size}, of which {share} are images to train on, but "
            f"there are only {sizes[0]}; lower it"
        )
    images, labels = zip(training, *(split for split, _ in added), strict=True)
    return Mixture(
        np.concatenate(images),
        np.concatenate(labels).astype(np.int32),
        _order(sizes, [share, *shares], epochs * steps, seed),
    )


def _order(sizes: list[int], shares: list[int], steps: int, seed: int) -> np.ndarray:
    """Return the indices of the images in each step, int32 (steps, sum of `shares`).

    Args:
        sizes: The number of images of each kind. The indices of a kind follow those of
            the previous kind.
        shares: The number of images of each kind in a step.
        steps: The number of steps.
        seed: The seed. Each kind has a new random order whenever all of its images have been used.
    """
    random = np.random.default_rng(seed)
    kinds, first = [], 0
    for size, share in zip(sizes, shares, strict=True):
        passes = -(-steps * share // size) if share else 0
        order = [first + random.permutation(size) for _ in range(passes)]
        kinds.append(np.concatenate([*order, np.empty(0, int)])[: steps * share].reshape(steps, -1))
        first += size
    return random.permuted(np.concatenate(kinds, axis=1), axis=1).astype(np.int32)


def _distorted(images: tf.Tensor, recipe: params.Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Distort images as the recipe says.

    Args:
        images: uint8 (N, 28, 28).
        recipe: The amounts. The photometric distortion changes a fraction of the images, the first.
        seed: int64 (2,). Equal seeds give equal distortions.

    Returns:
        uint8 (N, 28, 28).
    """
    count = images.shape[0]
    if not recipe.augment.is_identity:
        images = distort(images, transforms(count, recipe.augment, seed))
    changed = round(count * recipe.photometric.fraction)
    if changed:
        first = photometric.distort(
            images[:changed], recipe.photometric, tf.stack([seed[0] + 2, seed[1]])
        )
        images = tf.concat([first, images[changed:]], axis=0)
    return images


def calibrate(average: keras.Model, validation: Split, recipe: params.Recipe, seed: int) -> None:
    """Calibrate a network on distorted images, as `network.calibrate` describes.

    Pictures that people send differ from MNIST's images about as much as distorted images do.

    Args:
        average: The network.
        validation: Images that the training did not use, uint8 (N, 28, 28), and their labels.
        recipe: The amounts of the distortion.
        seed: The seed of the distortion.
    """
    images, labels = validation
    step = -1  # the training uses the steps from 0 on
    distorted = _distorted(tf.constant(images), recipe, tf.constant([seed, step], tf.int64))
    network.calibrate(average, distorted.numpy(), labels)


def _background_count(recipe: params.Recipe) -> int:
    """Return the number of background images in a batch."""
    return round(recipe.batch_size * recipe.background_fraction)


def _batches(
    mixture: Mixture,
    recipe: params.Recipe,
    seed: int,
    first: int,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """Create the data set of one worker, from step `first` on.

    An element is the share of one replica in one step: images, uint8 (n, 28, 28), and labels, int32
    (n,). The images are in memory once, as tensors from which each step gathers its rows. Each
    replica augments the whole batch, so that the result does not depend on the number of replicas.
    """
    all_images, all_labels = tf.constant(mixture.images), tf.constant(mixture.labels)
    all_rows = tf.constant(mixture.order)
    steps, _ = mixture.order.shape
    replicas = context.num_replicas_in_sync
    own_replicas = replicas // context.num_input_pipelines  # replicas of this worker

    @unconverted
    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = number // own_replicas
        replica = context.input_pipeline_id * own_replicas + number % own_replicas

        def share(rows: tf.Tensor) -> tf.Tensor:
            count = rows.shape[0]
            own = rows[count * replica // replicas : count * (replica + 1) // replicas]
            if count % replicas == 0:
                own = tf.ensure_shape(own, [count // replicas, *rows.shape[1:]])
            return own

        rows = all_rows[step]
        digits = _distorted(tf.gather(all_images, rows), recipe, tf.stack([seed, step]))
        backgrounds = background(_background_count(recipe), tf.stack([seed + 1, step]))
        no_labels = tf.fill([backgrounds.shape[0]], NO_LABEL)
        return (
            share(tf.concat([digits, backgrounds], axis=0)),
            share(tf.concat([tf.gather(all_labels, rows), no_labels], axis=0)),
        )

    return (
        tf.data.Dataset.range(first * own_replicas, steps * own_replicas)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def main() -> None:
    chosen = params.load()
    strategy = distribute.choose(chosen.train.strategy)
    machine = determinism.machine_class(
        {device.device_type for device in tf.config.list_physical_devices()}
    )
    _compare(machine, paths.MODEL_CARD)
    with distribute.reporting_lost_workers(strategy):
        _run(chosen, strategy, machine)


def _compare(machine: str, card: Path) -> None:
    """Say so if the last model was trained on a machine of another class.

    Args:
        machine: The class of this machine.
        card: The model card of the last model, which may be missing.
    """
    other = determinism.recorded_class(card.read_text()) if card.exists() else ""
    if other and other != machine:
        tqdm.write(
            f"this machine ({machine}) is of another class than the one that wrote dvc.lock "
            f"({other}), so the network gets other bytes and dvc.lock changes; the metrics change "
            "only a little"
        )


def _handwriting(chosen: params.Params) -> Split:
    """Read the training parts of all sources of handwriting."""
    sources = [
        idx.load(paths.HANDWRITING / source.name, "training") for source in chosen.data.handwriting
    ]
    images, labels = zip(idx.NONE, *sources, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _run(chosen: params.Params, strategy: tf.distribute.Strategy, machine: str) -> None:
    images, labels = idx.load(paths.IDX, "training")
    handwriting = _handwriting(chosen)
    drawn_digits = idx.load(paths.DRAWN_DIGITS, "training")
    non_digits, _ = idx.load(paths.NON_DIGITS, "training")
    cut = len(labels) - chosen.train.validation_size
    if cut <= 0:
        raise StageError(
            f"train.validation_size is {chosen.train.validation_size}, but the training split has "
            f"only {len(labels)} images"
        )
    key = checkpoint.key(chosen, (images, labels, *handwriting, *drawn_digits, non_digits))
    if not np.array_equal(distribute.from_chief(strategy, key), key):
        raise StageError("this worker's params, data, code or libraries differ from the chief's")
    keras.utils.set_random_seed(chosen.train.seed)
    with strategy.scope():
        model = network.build(chosen.network)

    def run_training(after_epoch: Callable[[Figures], None]) -> keras.Model:
        return train(
            model,
            (images[:cut], labels[:cut]),
            (images[cut:], labels[cut:]),
            chosen.recipe,
            chosen.train.epochs,
            chosen.train.seed,
            after_epoch,
            key,
            handwriting,
            drawn_digits,
            non_digits,
        )

    if not distribute.is_chief(strategy):
        run_training(lambda figures: None)
        return
    with (
        atomic_directory(paths.NETWORK) as folder,
        atomic_directory(paths.TRAINING) as curves,
        Live(str(curves), dvcyaml=False, save_dvc_exp=False) as live,
    ):
        points: dict[str, list[dict[str, object]]] = {"loss": [], "accuracy": []}

        def after_epoch(figures: Figures) -> None:
            epoch = live.step + 1
            for name, value in figures.items():
                split, figure = name.split("/")
                live.log_metric(name, value, plot=False)
                points[figure].append({"epoch": epoch, "split": split, figure: value})
            for figure, rows in points.items():
                live.log_plot(figure, rows, x="epoch", y=figure, template="curves")
            text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            tqdm.write(f"epoch {epoch}/{chosen.train.epochs}: {text}")
            live.next_step()

        average = run_training(after_epoch)
        calibrate(average, (images[cut:], labels[cut:]), chosen.recipe, chosen.train.seed)
        network.save(average, folder)
        (folder / determinism.MACHINE).write_text(f"{machine}\n")
    checkpoint.remove()
