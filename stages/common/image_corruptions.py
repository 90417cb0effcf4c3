"""Ways in which pictures of digits go bad, to measure how well the network bears them.

After Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019, in a strength at
which a person still reads almost every digit. Each takes uint8 (N, 28, 28) and a random generator,
and gives the same shape and type.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SEED = 0

Images = np.ndarray


def corrupted(images: Images) -> dict[str, Images]:
    """The images in each bad way, by its name; the same for the same images."""
    ways = {"noise": noise, "blur": blur, "contrast": contrast, "lines": lines}
    return {name: way(images, np.random.default_rng(SEED)) for name, way in ways.items()}


def noise(images: Images, random: np.random.Generator) -> Images:
    """Gaussian noise of standard deviation 64 of 255."""
    noisy = images + random.normal(0, 64, images.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def blur(images: Images, random: np.random.Generator) -> Images:
    """Gaussian blur of standard deviation 1.5 pixels."""
    soften = ImageFilter.GaussianBlur(1.5)
    return np.stack([np.asarray(Image.fromarray(image).filter(soften)) for image in images])


def contrast(images: Images, random: np.random.Generator) -> Images:
    """Contrast of 0.3 around each image's mean."""
    mean = images.mean((1, 2), keepdims=True)
    return (mean + 0.3 * (images - mean)).astype(np.uint8)


def lines(images: Images, random: np.random.Generator) -> Images:
    """A black and a white line across each image, 2 pixels wide and 1."""
    ends = random.uniform(0, 27, (len(images), 2, 2))
    crossed = []
    for image, (first, last) in zip(images, ends, strict=True):
        picture = Image.fromarray(image)
        draw = ImageDraw.Draw(picture)
        draw.line((0, first[0], 27, last[0]), fill=0, width=2)
        draw.line((first[1], 0, last[1], 27), fill=255, width=1)
        crossed.append(np.asarray(picture))
    return np.stack(crossed)
