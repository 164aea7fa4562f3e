// How much boxes overlap: the formulas of cvlab/boxes.py, in double precision. A box is [xMin, yMin, xMax, yMax].

function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

// Intersection, union, IoU and GIoU of two boxes; hull is the area of the smallest box around both.
function compare(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const intersection = Math.max(width, 0) * Math.max(height, 0);
  const union = area(a) + area(b) - intersection;
  const hull = (Math.max(a[2], b[2]) - Math.min(a[0], b[0])) * (Math.max(a[3], b[3]) - Math.min(a[1], b[1]));
  const iou = union > 0 ? intersection / union : 0;
  const giou = iou - (hull > 0 ? (hull - union) / hull : 0);
  return { intersection, union, hull, iou, giou };
}

// The derivatives of IoU and GIoU with respect to the four coordinates of the first box, by the quotient rule.
// Where two sides are level, the first box's side counts, as in TensorFlow's gradient of minimum and maximum.
function gradients(box, other) {
  const { intersection, union, hull } = compare(box, other);
  const derivatives = { iou: [0, 0, 0, 0], giou: [0, 0, 0, 0] };
  for (let k = 0; k < 4; k += 1) {
    const axis = k % 2; // 0: x, and 1: y
    const across = 1 - axis;
    const last = k > 1; // xMax or yMax rather than xMin or yMin
    const sign = last ? 1 : -1;
    const length = (pick, low, high) => pick(box[high], other[high]) - (pick === Math.min ? Math.max : Math.min)(
      box[low], other[low]);
    const shared = [0, 1].map((i) => length(Math.min, i, i + 2)); // width and height of the intersection
    const whole = [0, 1].map((i) => length(Math.max, i, i + 2)); // and of the hull
    const inner = last ? box[k] <= other[k] : box[k] >= other[k]; // this side bounds the intersection
    const outer = last ? box[k] >= other[k] : box[k] <= other[k]; // it bounds the hull
    const ofIntersection = inner && shared[axis] >= 0 ? sign * Math.max(shared[across], 0) : 0;
    const ofUnion = sign * (box[across + 2] - box[across]) - ofIntersection;
    const ofHull = outer ? sign * whole[across] : 0;
    if (union > 0) derivatives.iou[k] = (ofIntersection * union - intersection * ofUnion) / (union * union);
    derivatives.giou[k] = derivatives.iou[k];
    if (hull > 0) derivatives.giou[k] += (ofUnion * hull - union * ofHull) / (hull * hull);
  }
  return derivatives;
}
