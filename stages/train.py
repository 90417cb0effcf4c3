"""Train the network that `network.kind` names.

    dvc repro train
    dvc exp run -S train.epochs=3 -S network.kind=mlp

Reads `data/idx/`, `network` and `train` in params.yaml; writes `data/network/` (architecture and
weights) and `data/training/` (loss and accuracy after each epoch). A run that was interrupted goes
on after its last whole epoch. Many workers give the network that one gives, to rounding: of each
batch, every replica computes the losses of its own rows, and all add up their gradients.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from dvclive import Live
from tqdm import tqdm

from stages.common import checkpoint, distribute, idx, metrics, network, params
from stages.common.augment import background, distort, transforms
from stages.common.checkpoint import Figures
from stages.common.idx import Split
from stages.common.runner import StageError, atomic_directory

STEPS_A_CALL = 25  # so many steps run without Python in between; the progress bar moves after each

NO_LABEL = -1  # of a picture of nothing


def train(
    model: keras.Model,
    training: Split,
    validation: Split,
    recipe: params.Recipe,
    epochs: int,
    seed: int,
    after_epoch: Callable[[Figures], None],
    key: np.ndarray | None = None,
) -> keras.Model:
    """Train `model`, on all replicas of the `tf.distribute` strategy in whose scope it was built.

    Args:
        model: the network, (N, 28, 28) pixels to (N, 10) logits; its weights change.
        after_epoch: called by the chief with `train/loss`, `train/accuracy`, `validation/loss`
            and `validation/accuracy`. Training figures are of distorted images, as seen on the way.
        key: of `checkpoint.key`; with it, the run goes on where one with this key was interrupted.

    Returns:
        The network whose weights are the moving average of those of `model`; it has no strategy.

    Raises:
        StageError: there are fewer images than one batch, or less than one for each replica, or
            the loss is no longer a number.
    """
    images, labels = training
    batch = recipe.batch_size
    steps = len(labels) // batch  # of an epoch
    if steps == 0:
        raise StageError(f"batch_size is {batch}, but there are {len(labels)} images to train on")
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if batch < replicas:
        raise StageError(f"batch_size is {batch}, but there are {replicas} replicas to share it")
    chief = distribute.is_chief(strategy)
    average = keras.models.clone_model(model)
    average.set_weights(model.get_weights())
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = replicas > 1  # statistics are those of the whole batch
    with strategy.scope():
        optimizer = _optimizer(recipe, epochs * steps, model)
    state = [*model.variables, *average.variables, *optimizer.variables]
    history: list[Figures] = []  # of the epochs that are done; of the chief alone
    before = 0  # the epochs that an interrupted run did
    if key is not None:
        before, history = checkpoint.restore(key, state, strategy)
    for figures in history:
        after_epoch(figures)
    order = _order(len(labels), batch, epochs, seed)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: _batches(images, labels, order, recipe, seed, before * steps, context)
        )
    )
    advance = _stepper(model, average, optimizer, recipe, batches)

    silent = None if chief else True  # None is where there is no terminal
    with tqdm(total=epochs * steps, initial=before * steps, unit="step", disable=silent) as bar:
        for epoch in range(before + 1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}")
            loss, hits, done = 0.0, 0, 0
            while done < steps:
                count = min(STEPS_A_CALL, steps - done)
                more_loss, more_hits = advance(tf.constant(count))
                loss, hits, done = loss + float(more_loss), hits + int(more_hits), done + count
                figures = {"train/loss": loss / done, "train/accuracy": hits / (done * batch)}
                bar.set_postfix(loss=f"{loss / done:.4f}", accuracy=f"{hits / (done * batch):.4f}")
                bar.update(count)
            if not np.isfinite(loss):
                raise StageError(f"the loss of epoch {epoch} is {loss}; lower the learning_rate")
            if not chief:
                continue
            seen = network.probabilities(average, validation[0])
            figures["validation/loss"] = metrics.cross_entropy(seen, validation[1])
            figures["validation/accuracy"] = metrics.accuracy(seen, validation[1])
            after_epoch(figures)
            history.append(figures)
            if key is not None:
                checkpoint.save(key, state, history)
    return average


def _stepper(
    model: keras.Model,
    average: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: params.Recipe,
    batches: Iterator[tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the function that takes so many steps, all in one call of TensorFlow.

    It returns the sum of the steps' losses and the number of images that were answered rightly.
    """
    strategy = model.distribute_strategy
    count_of_all = recipe.batch_size + _extra(recipe)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's part of one step."""
        smoothing = tf.where(labels == NO_LABEL, 1.0, recipe.label_smoothing)[:, tf.newaxis]
        targets = tf.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, model.compute_dtype), training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(losses) / count_of_all
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the replicas
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.int32))
        return loss, hits

    def follow() -> None:
        """Move the average; early on it reaches back over a tenth of the steps so far only."""
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
            follow()
        return losses, hits

    return advance


def _optimizer(recipe: params.Recipe, steps: int, model: keras.Model) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019): linear warm-up, then a cosine down to 0.

    Biases and the parameters of batch normalisation do not decay.
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


def _order(count: int, batch: int, epochs: int, seed: int) -> np.ndarray:
    """Which image is where in which step: int32 (steps, batch), shuffled anew each epoch.

    The last images of an epoch that fill no batch are left out of it.
    """
    random = np.random.default_rng(seed)
    full = count - count % batch
    shuffled = [random.permutation(count)[:full].reshape(-1, batch) for _ in range(epochs)]
    return np.concatenate(shuffled).astype(np.int32)


def _extra(recipe: params.Recipe) -> int:
    """The number of background images in a batch."""
    return round(recipe.batch_size * recipe.background_fraction)


def _batches(
    images: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    recipe: params.Recipe,
    seed: int,
    first: int,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """What the replicas of one worker compute, from step `first` on: uint8 (n, 28, 28), int32 (n,).

    The split stays in memory once, as tensors from which each step gathers its rows. What is
    random is drawn for the whole batch, so that an image is the same whichever replica has it.
    """
    all_images, all_labels = tf.constant(images), tf.constant(labels, tf.int32)
    all_rows = tf.constant(order)
    replicas = context.num_replicas_in_sync
    here = replicas // context.num_input_pipelines  # replicas of this worker

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step, replica = number // here, context.input_pipeline_id * here + number % here

        def share(rows: tf.Tensor) -> tf.Tensor:
            count = len(rows)
            own = rows[count * replica // replicas : count * (replica + 1) // replicas]
            if count % replicas == 0:
                own = tf.ensure_shape(own, [count // replicas, *rows.shape[1:]])
            return own

        rows = share(all_rows[step])
        chosen = tf.gather(all_images, rows)
        if not recipe.augment.is_identity:
            drawn = transforms(recipe.batch_size, recipe.augment, tf.stack([seed, step]))
            chosen = distort(chosen, share(drawn))
        empty = share(background(_extra(recipe), tf.stack([seed + 1, step])))
        return (
            tf.concat([chosen, empty], axis=0),
            tf.concat([tf.gather(all_labels, rows), tf.fill([len(empty)], NO_LABEL)], axis=0),
        )

    return (
        tf.data.Dataset.range(first * here, len(order) * here)
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def main() -> None:
    chosen = params.load()
    strategy = distribute.choose(chosen.train.strategy)
    with distribute.end_with_the_others(strategy):
        _run(chosen, strategy)


def _run(chosen: params.Params, strategy: tf.distribute.Strategy) -> None:
    images, labels = idx.load(Path("data/idx"), "training")
    cut = len(labels) - chosen.train.validation_size
    if cut <= 0:
        raise StageError(
            f"train.validation_size leaves nothing of {len(labels)} images to train on"
        )
    key = checkpoint.key(chosen, (images, labels))
    if not np.array_equal(distribute.from_chief(strategy, key), key):
        raise StageError("this worker's params, data, code or libraries are not those of the chief")
    keras.utils.set_random_seed(chosen.train.seed)
    with strategy.scope():
        model = network.build(chosen.network)

    def trained(after_epoch: Callable[[Figures], None]) -> keras.Model:
        return train(
            model,
            (images[:cut], labels[:cut]),
            (images[cut:], labels[cut:]),
            chosen.recipe,
            chosen.train.epochs,
            chosen.train.seed,
            after_epoch,
            key,
        )

    if not distribute.is_chief(strategy):
        trained(lambda figures: None)
        return
    with (
        atomic_directory(Path("data/network")) as folder,
        atomic_directory(Path("data/training")) as curves,
        Live(str(curves), dvcyaml=False, save_dvc_exp=False) as live,
    ):
        points: dict[str, list[dict[str, object]]] = {"loss": [], "accuracy": []}

        def after_epoch(figures: Figures) -> None:
            epoch = live.step + 1
            for name, value in figures.items():
                split, figure = name.split("/")
                live.log_metric(name, value, plot=False)
                points[figure].append({"epoch": epoch, "split": split, figure: value})
            for figure, so_far in points.items():
                live.log_plot(figure, so_far, x="epoch", y=figure, template="curves")
            said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            tqdm.write(f"epoch {epoch}/{chosen.train.epochs}: {said}")
            live.next_step()

        average = trained(after_epoch)
        network.calibrate(average, images[cut:], labels[cut:])
        network.save(average, folder)
    checkpoint.remove()
