"""The loss that the face detector's network is trained with."""

from keras import ops

QUALITY = (0.3, 0.7)  # intersections over union of a detected and the true box, at which the target of the score is 0 and 1
BOX_WEIGHT = 4.0  # of the boxes' loss relative to the scores'


def detection_loss(targets, cells):
    """Return the loss of a batch, one number, divided by the number of true faces.

    `targets` is (n, rows, columns, 7) of `data.target_maps`, `cells` (n, rows, columns, 5) of the network. Scores: the
    focal loss of CenterNet (Zhou et al., 2019), but the target of a face's own cell is the quality of the box detected
    there (Li et al., "Generalized Focal Loss", 2020). Boxes: generalised IoU (Rezatofighi et al., 2019).
    """
    heatmap, weight, box, box_weight = targets[..., 0], targets[..., 1], targets[..., 2:6], targets[..., 6]
    score = ops.clip(ops.sigmoid(cells[..., 0]), 1e-5, 1 - 1e-5)
    iou, gap = _iou_and_gap(box, _boxes(cells))

    is_face = ops.cast(heatmap > 0.999, score.dtype)
    low, high = QUALITY
    quality = ops.clip((ops.stop_gradient(iou) - low) / (high - low), 0, 1)
    cross_entropy = -quality * ops.log(score) - (1 - quality) * ops.log(1 - score)
    positive_loss = is_face * cross_entropy * (quality - score) ** 2
    negative_loss = -(1 - is_face) * (1 - heatmap) ** 4 * score**2 * ops.log(1 - score)
    box_loss = (1 - iou + gap) * box_weight
    faces = ops.maximum(ops.sum(is_face), 1.0)
    return (ops.sum((positive_loss + negative_loss) * weight) + BOX_WEIGHT * ops.sum(box_loss)) / faces


def _boxes(cells):
    """Return the boxes (n, rows, columns, 4), x1, y1, x2, y2 in cells, of the network's output."""
    _, rows, columns, _ = ops.shape(cells)
    y = cells[..., 1] + (ops.arange(rows, dtype=cells.dtype) + 0.5)[None, :, None]
    x = cells[..., 2] + (ops.arange(columns, dtype=cells.dtype) + 0.5)[None, None, :]
    half_height, half_width = (ops.exp(ops.clip(cells[..., i], -5, 6)) / 2 for i in (3, 4))
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def _iou_and_gap(true, detected):
    """Return intersection over union, and the part of the boxes' common hull outside their union."""
    inner = ops.maximum(ops.minimum(true[..., 2:], detected[..., 2:]) - ops.maximum(true[..., :2], detected[..., :2]), 0)
    outer = ops.maximum(true[..., 2:], detected[..., 2:]) - ops.minimum(true[..., :2], detected[..., :2])
    intersection, hull = ops.prod(inner, axis=-1), ops.prod(outer, axis=-1)
    union = sum(ops.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (true, detected)) - intersection
    return intersection / (union + 1e-6), (hull - union) / (hull + 1e-6)
