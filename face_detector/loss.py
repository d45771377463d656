"""What the face detector's network is trained to make small."""

from keras import ops

QUALITY = (0.3, 0.7)  # overlaps of a found box with the true one at which its score shall be 0 and 1
BOX_WEIGHT = 4.0  # of the boxes' loss against the scores'


def detection_loss(targets, cells):
    """Return the loss of a batch, a number a true face.

    `targets` is (n, rows, columns, 7) of `scenes.target_maps`, `cells` (n, rows, columns, 5) of the network. Scores:
    the focal loss of CenterNet (Zhou et al., 2019), but a face's own cell shall have as its score the quality of the
    box found there (Li et al., "Generalized Focal Loss", 2020). Boxes: generalised IoU (Rezatofighi et al., 2019).
    """
    bell, weight, box, box_weight = targets[..., 0], targets[..., 1], targets[..., 2:6], targets[..., 6]
    score = ops.clip(ops.sigmoid(cells[..., 0]), 1e-5, 1 - 1e-5)
    overlap, gap = _overlap_and_gap(box, _boxes(cells))

    is_face = ops.cast(bell > 0.999, score.dtype)
    low, high = QUALITY
    quality = ops.clip((ops.stop_gradient(overlap) - low) / (high - low), 0, 1)
    cross_entropy = -quality * ops.log(score) - (1 - quality) * ops.log(1 - score)
    of_faces = is_face * cross_entropy * (quality - score) ** 2
    of_others = -(1 - is_face) * (1 - bell) ** 4 * score**2 * ops.log(1 - score)
    of_boxes = (1 - overlap + gap) * box_weight
    faces = ops.maximum(ops.sum(is_face), 1.0)
    return (ops.sum((of_faces + of_others) * weight) + BOX_WEIGHT * ops.sum(of_boxes)) / faces


def _boxes(cells):
    """Return the boxes (n, rows, columns, 4), x1, y1, x2, y2 in cells, of the network's output."""
    _, rows, columns, _ = ops.shape(cells)
    y = cells[..., 1] + (ops.arange(rows, dtype=cells.dtype) + 0.5)[None, :, None]
    x = cells[..., 2] + (ops.arange(columns, dtype=cells.dtype) + 0.5)[None, None, :]
    half_height, half_width = (ops.exp(ops.clip(cells[..., i], -5, 6)) / 2 for i in (3, 4))
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _overlap_and_gap(true, found):
    """Return intersection over union, and the part of the boxes' common hull outside their union."""
    inner = ops.maximum(ops.minimum(true[..., 2:], found[..., 2:]) - ops.maximum(true[..., :2], found[..., :2]), 0)
    outer = ops.maximum(true[..., 2:], found[..., 2:]) - ops.minimum(true[..., :2], found[..., :2])
    intersection, hull = ops.prod(inner, axis=-1), ops.prod(outer, axis=-1)
    union = sum(ops.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (true, found)) - intersection
    return intersection / (union + 1e-6), (hull - union) / (hull + 1e-6)
