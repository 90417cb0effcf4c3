"""Image corruptions that measure the robustness of the network.

They follow Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019, at a
strength at which a person still reads almost every digit. Each function takes images, uint8
(N, 28, 28), and a random generator, and returns corrupted images of the same shape and dtype.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SEED = 0

Images = np.ndarray


def corrupted(images: Images) -> dict[str, Images]:
    """Apply each corruption to the images; equal images give equal results.

    Args:
        images: uint8 (N, 28, 28).

    Returns:
        The corrupted images, uint8 (N, 28, 28), by the name of the corruption.
    """
    corruptions = {"noise": noise, "blur": blur, "contrast": contrast, "lines": lines}
    return {
        name: corrupt(images, np.random.default_rng(SEED)) for name, corrupt in corruptions.items()
    }


def noise(images: Images, random: np.random.Generator) -> Images:
    """Add Gaussian noise with a standard deviation of 64 gray levels of 255."""
    noisy = images + random.normal(0, 64, images.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def blur(images: Images, random: np.random.Generator) -> Images:
    """Apply a Gaussian blur with a standard deviation of 1.5 pixels."""
    soften = ImageFilter.GaussianBlur(1.5)
    return np.stack([np.asarray(Image.fromarray(image).filter(soften)) for image in images])


def contrast(images: Images, random: np.random.Generator) -> Images:
    """Reduce the contrast around the mean of each image to 0.3 of the original."""
    mean = images.mean((1, 2), keepdims=True)
    return (mean + 0.3 * (images - mean)).astype(np.uint8)


def lines(images: Images, random: np.random.Generator) -> Images:
    """Draw a black line 2 pixels wide and a white line 1 pixel wide across each image."""
    ends = random.uniform(0, 27, (len(images), 2, 2))
    crossed = []
    for image, (first, last) in zip(images, ends, strict=True):
        picture = Image.fromarray(image)
        draw = ImageDraw.Draw(picture)
        draw.line((0, first[0], 27, last[0]), fill=0, width=2)
        draw.line((first[1], 0, last[1], 27), fill=255, width=1)
        crossed.append(np.asarray(picture))
    return np.stack(crossed)
