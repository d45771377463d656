"""Class names of the mask classifier: how people read them, in which colours, and which are alerts."""

from collections.abc import Iterable

Colour = tuple[int, int, int]  # BGR

WITH_MASK, WITHOUT_MASK, WORN_WRONG = "with_mask", "without_mask", "mask_weared_incorrect"  # as the data sets name them

UNSURE = 0.6  # probability: a less probable label is unsure; a first choice, to be set from labels on val.txt
BACKGROUND = "background"  # the class, if a model has one, of crops that show no face: no label of a face

# Okabe and Ito's colours, which colour-blind people distinguish too: https://jfly.uni-koeln.de/color/
STYLES: dict[str, tuple[str, Colour]] = {
    WITH_MASK: ("Mask", (115, 158, 0)),
    WITHOUT_MASK: ("No mask", (0, 94, 213)),
    WORN_WRONG: ("Mask worn wrong", (0, 159, 230)),
}
OTHER_COLOUR: Colour = (178, 114, 0)


def display_name(label: str, unsure: bool = False) -> str:
    """Return a class name as people read it, with a question mark if it is unsure."""
    name = STYLES[label][0] if label in STYLES else label.replace("_", " ").capitalize()
    return f"{name}?" if unsure else name


def percent(value: float, digits: int = 0) -> str:
    """Return a probability, 0..1, as people read it; what is not certain is never 100%: 0.997 is 99.7%."""
    if value < 1 and f"{value:.{digits}%}".startswith("100"):
        return f"{min(value, 0.999):.1%}"
    return f"{value:.{digits}%}"


def colour(label: str) -> Colour:
    """Return the colour of a class, blue for one that is not of this project."""
    return STYLES.get(label, ("", OTHER_COLOUR))[1]


def css_colour(colour: Colour) -> str:
    """Return a colour as CSS has it."""
    blue, green, red = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def alerts(classes: Iterable[str]) -> list[str]:
    """Return the classes that are events: all but the one with a mask."""
    return [label for label in classes if label != WITH_MASK]
