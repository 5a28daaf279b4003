// From the pixels of a picture to a face as ferlib's networks take it: the arithmetic of Pillow's
// Image.resize(LANCZOS) and convert("L"), so that the answers are those of `ferlib predict`.

export const SIDE = 48;
const LOBES = 3;
const BITS = 22; // weights are whole numbers: this many bits behind the point

function lanczos(x) {
  if (x === 0) return 1;
  if (x < -LOBES || x >= LOBES) return 0;
  const angle = Math.PI * x;
  return (LOBES * Math.sin(angle) * Math.sin(angle / LOBES)) / (angle * angle);
}

// For each of `size` new pixels: the first old one that counts, and the weights from there on.
function weights(length, start, end, size) {
  const scale = (end - start) / size;
  const stretch = Math.max(scale, 1);
  const reach = LOBES * stretch;
  return Array.from({ length: size }, (_, place) => {
    const centre = start + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(length, Math.trunc(centre + reach + 0.5));
    const found = [];
    for (let old = first; old < last; old++) found.push(lanczos((old - centre + 0.5) / stretch));
    const sum = found.reduce((a, b) => a + b, 0);
    const whole = found.map((weight) => {
      const scaled = (weight / sum) * 2 ** BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { first, whole };
  });
}

function rounded(sum) {
  return Math.min(255, Math.max(0, Math.floor((sum + 2 ** (BITS - 1)) / 2 ** BITS)));
}

// Cuts a square out of ImageData and gives its 48x48 grey pixels, a Uint8Array.
export function crop(picture, left, top, side) {
  const { data, width, height } = picture;
  const across = weights(width, left, left + side, SIDE);
  const down = weights(height, top, top + side, SIDE);
  const rows = new Map();
  const row = (y) => {
    if (!rows.has(y)) {
      const made = new Uint8Array(SIDE * 3);
      across.forEach(({ first, whole }, x) => {
        for (let channel = 0; channel < 3; channel++) {
          let sum = 0;
          let place = (y * width + first) * 4 + channel;
          for (const weight of whole) {
            sum += weight * data[place];
            place += 4;
          }
          made[x * 3 + channel] = rounded(sum);
        }
      });
      rows.set(y, made);
    }
    return rows.get(y);
  };
  const grey = new Uint8Array(SIDE * SIDE);
  down.forEach(({ first, whole }, y) => {
    for (let x = 0; x < SIDE; x++) {
      const colour = [0, 1, 2].map((channel) =>
        rounded(whole.reduce((sum, weight, n) => sum + weight * row(first + n)[x * 3 + channel], 0)),
      );
      const [red, green, blue] = colour;
      grey[y * SIDE + x] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    }
  });
  return grey;
}
