"""What is compared: the methods by their names in tables of scores, what they are called, and what the talk had."""

from __future__ import annotations

from dataclasses import dataclass

#: The simple two-dimensional technique (`apbatch.dl.judging.box_cuts`).
BOX = "box"
#: Ends the name of a method whose scores are the mean of its trainings.
MEAN = "+"
#: Between the name of a method and the number of its training in tables of scores.
_TRAINING = "#"


@dataclass(frozen=True)
class Method:
    """How a method is shown.

    Attributes
    ----------
    title : str
        What it is called in words.
    colour, mark : str
        Colour-blind safe (Okabe and Ito), one on the whole page; a marker of matplotlib.
    network : bool
        Whether it sees images; others see image parameters.
    """

    title: str
    colour: str
    mark: str
    network: bool = True


METHODS = {
    BOX: Method("simple 2-D technique", "#7f7f7f", "s", network=False),
    "trees": Method("boosted trees", "#009e73", "^", network=False),
    "forest": Method("random forest", "#56b4e9", "v", network=False),
    "talk-cnn": Method("the talk's CNN", "#0072b2", "o"),
    "hillas-cnn": Method("CNN and image parameters", "#e69f00", "P"),
    "resnet": Method("residual network", "#d55e00", "D"),
    "hex-cnn": Method("hexagonal network", "#cc79a7", "h"),
    "halo-trees": Method("boosted trees on the halo", "#117733", ">", network=False),
    "halo-net": Method("halo network", "#882255", "*"),
    "halo": Method("halo net + halo trees", "#000000", "X"),
    "ensemble": Method("CNN + halo net + halo trees", "#332288", "p"),
}
#: Methods that every row of the table is compared with on the same images.
RIVALS = (BOX, "trees", "halo-trees")
#: Q in A. Kryukov's talk (VLVNT 2018) by method and cleaning: its slides say "after soft cleaning". They are of other
#: events, with neither errors nor numbers of hadrons: to be compared with, not to be met.
TALK = {
    (BOX, "none"): "1.76",
    (BOX, "soft"): "1.70",
    ("talk-cnn", "none"): "1.48 (TensorFlow), 1.74 (PyTorch)",
    ("talk-cnn", "soft"): "2.99 (TensorFlow), 2.55 (PyTorch)",
}


def base_of(method: str) -> str:
    """Return the method whose trainings a method is, or is the mean of."""
    return method.removesuffix(MEAN)


def method_named(method: str) -> Method:
    """Return the title, colour and mark of a method; an unknown one is grey under its own name."""
    base = base_of(method)
    return METHODS.get(base, Method(base, "#666666", "o"))


def title_of(method: str) -> str:
    """Return what a method is called in words."""
    title = method_named(method).title
    return f"{title}, mean of its trainings" if method.endswith(MEAN) else title


def can_be_a_method(name: str) -> bool:
    """Tell whether a method can have this name in tables of scores."""
    return name.isprintable() and bool(name) and not set(name) & {MEAN, _TRAINING}


def training_name(method: str, training: int) -> str:
    """Return the name of one training of a method in a table of scores."""
    return f"{method}{_TRAINING}{training}"


def method_of(name: str) -> tuple[str, int]:
    """Return the method and the number of the training of a name in a table of scores."""
    method, _, training = name.partition(_TRAINING)
    return method, int(training or 1)
