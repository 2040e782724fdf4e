// Pillow's way to resize, which training used: the filter widens with the factor; 8 bits after each of two passes.
const FILTERS = {
  bilinear: {support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x))},
  bicubic: {support: 2, weight: (x) => cubic(Math.abs(x), -0.5)},
};

function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Resize a box of RGBA pixels to RGB of `size` x `size`. */
export function resample({data, width, height}, {left, top, right, bottom}, size, name) {
  const columns = taps(left, right, width, size, FILTERS[name]), rows = taps(top, bottom, height, size, FILTERS[name]);
  const tall = height > size && height - size > 2 * (width - size);  // then Pillow makes the picture low first
  const [one, other] = tall ? [rows, columns] : [columns, rows];
  const first = other[0].start, count = other[size - 1].start + other[size - 1].weights.length - first;
  const along = tall ? {pixel: 4 * width, line: 4, from: 4 * first} : {pixel: 4, line: 4 * width, from: 4 * first * width};
  const half = pass(data, one, count, along, {pixel: 3, line: 3 * size});
  const moved = other.map(({start, weights}) => ({start: start - first, weights}));
  const to = tall ? {pixel: 3, line: 3 * size} : {pixel: 3 * size, line: 3};
  return pass(half, moved, size, {pixel: 3 * size, line: 3, from: 0}, to);
}

/** For each pixel of an output line, where its inputs start and what each weighs. */
function taps(begin, end, length, size, {support, weight}) {
  const scale = (end - begin) / size, wider = Math.max(scale, 1), reach = support * wider;
  return Array.from({length: size}, (_, index) => {
    const centre = begin + (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5)), stop = Math.min(length, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({length: stop - start}, (_, place) => weight((place + start - centre + 0.5) / wider));
    const sum = raw.reduce((one, two) => one + two, 0);
    return {start, weights: Float64Array.from(raw, (one) => one / sum)};
  });
}

/** Resize `count` lines along one axis; `from` and `to` say how far apart pixels and lines are. */
function pass(source, taps, count, from, to) {
  const target = new Uint8ClampedArray(3 * taps.length * count);  // rounds, and cuts off what is beyond 0 to 255
  for (let line = 0; line < count; line++) {
    for (let index = 0; index < taps.length; index++) {
      const {start, weights} = taps[index];
      let place = from.from + line * from.line + start * from.pixel, red = 0, green = 0, blue = 0;
      for (const weight of weights) {
        red += weight * source[place];
        green += weight * source[place + 1];
        blue += weight * source[place + 2];
        place += from.pixel;
      }
      target.set([red, green, blue], line * to.line + index * to.pixel);
    }
  }
  return target;
}
