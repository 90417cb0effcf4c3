"""Train the network that `network.kind` names.

    dvc repro train
    dvc exp run -S train.epochs=3 -S network.kind=mlp

Reads `data/idx/`, `network` and `train` in params.yaml; writes `data/network/` (architecture and
weights) and `data/training/` (loss and accuracy after each epoch).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from service.quiet import tf

import keras
import numpy as np
from dvclive import Live
from tqdm import tqdm

from stages import idx, metrics, network, params
from stages.augment import augment, nothing
from stages.idx import Split
from stages.stage import StageError, run, whole_folder

STEPS_A_CALL = 25  # so many steps run without Python in between; the progress bar moves after each

NO_LABEL = -1  # of a picture of nothing

Figures = dict[str, float]


def train(
    model: keras.Model,
    training: Split,
    validation: Split,
    recipe: params.Recipe,
    epochs: int,
    seed: int,
    after_epoch: Callable[[Figures], None],
) -> keras.Model:
    """Train `model` under the current `tf.distribute` strategy, in whose scope it was built.

    Args:
        model: the network, (N, 28, 28) pixels to (N, 10) logits; its weights change.
        after_epoch: called with `train/loss`, `train/accuracy`, `validation/loss` and
            `validation/accuracy`. Training figures are of distorted images, as seen on the way.

    Returns:
        The network whose weights are the moving average of those of `model`.

    Raises:
        StageError: there are fewer images than one batch, or the loss is no longer a number.
    """
    images, labels = training
    batch = recipe.batch_size
    steps = len(labels) // batch  # of an epoch
    if steps == 0:
        raise StageError(f"batch_size is {batch}, but there are {len(labels)} images to train on")
    strategy = tf.distribute.get_strategy()
    with strategy.scope():
        average = keras.models.clone_model(model)
        average.set_weights(model.get_weights())
        optimizer = _optimizer(recipe, epochs * steps, model)
    order = _order(len(labels), batch, epochs, seed)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: _batches(images, labels, order, recipe, seed, context)
        )
    )
    advance = _stepper(model, average, optimizer, recipe, batches)

    with tqdm(total=epochs * steps, unit="step", disable=None) as bar:
        for epoch in range(1, epochs + 1):
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
            seen = network.probabilities(average, validation[0])
            figures["validation/loss"] = metrics.cross_entropy(seen, validation[1])
            figures["validation/accuracy"] = metrics.accuracy(seen, validation[1])
            after_epoch(figures)
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
    strategy = tf.distribute.get_strategy()

    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's part of one step."""
        smoothing = tf.where(labels == NO_LABEL, 1.0, recipe.label_smoothing)[:, tf.newaxis]
        targets = tf.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, tf.float32), training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses) / strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the replicas
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.int32))
        return loss, hits

    def follow() -> None:
        """Move the average; early on it reaches back over a tenth of the steps so far only."""
        done = tf.cast(optimizer.iterations.value, tf.float32)
        decay = tf.minimum(recipe.averaging, done / (10 + done))
        for mean, value in zip(average.variables, model.variables, strict=True):
            mean.value.assign_add((value.value - mean.value) * (1 - decay))

    @tf.function
    def advance(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, hits = 0.0, 0
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
    warmup = round(steps * recipe.warmup)
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


def _batches(
    images: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    recipe: params.Recipe,
    seed: int,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """The batches of one input pipeline, in order: uint8 (n, 28, 28) and int32 (n,).

    The split stays in memory once, as tensors from which each step gathers its rows.
    """
    pipelines = context.num_input_pipelines
    shares = order.reshape(len(order), pipelines, context.num_replicas_in_sync // pipelines, -1)
    rows = shares[:, context.input_pipeline_id].reshape(-1, shares.shape[-1])
    all_images, all_labels = tf.constant(images), tf.constant(labels, tf.int32)
    extra = round(rows.shape[1] * recipe.nothing)

    def batch(number: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = augment(tf.gather(all_images, row), recipe.augment, tf.stack([seed, number]))
        empty = nothing(extra, tf.stack([seed + 1, number]))
        return (
            tf.concat([chosen, empty], axis=0),
            tf.concat([tf.gather(all_labels, row), tf.fill([extra], NO_LABEL)], axis=0),
        )

    return (
        tf.data.Dataset.from_tensor_slices((np.arange(len(rows), dtype=np.int32), rows))
        .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def main() -> None:
    chosen = params.load()
    images, labels = idx.load(Path("data/idx"), "training")
    cut = len(labels) - chosen.train.validation
    if cut <= 0:
        raise StageError(f"train.validation leaves nothing of {len(labels)} images to train on")
    keras.utils.set_random_seed(chosen.train.seed)
    with (
        whole_folder(Path("data/network")) as folder,
        whole_folder(Path("data/training")) as curves,
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

        trained = train(
            network.build(chosen.network),
            (images[:cut], labels[:cut]),
            (images[cut:], labels[cut:]),
            chosen.recipe,
            chosen.train.epochs,
            chosen.train.seed,
            after_epoch,
        )
        network.calibrate(trained, images[cut:], labels[cut:])
        network.save(trained, folder)


if __name__ == "__main__":
    run(main)
