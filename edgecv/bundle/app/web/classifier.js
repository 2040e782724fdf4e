// From a photograph to probabilities, as preprocess.json says. The model itself subtracts mean and divides by scale.
import {loadAndCompile, loadLiteRt, Tensor} from "@litertjs/core";
import {withoutProfile} from "./profile.js";
import {resample} from "./resample.js";

const STRIP = 3840 * 2160;  // pixels read at once: those of a camera's frame, which the next one may replace

/**
 * Load a bundle: labels, preprocessing and model; its address ends in a slash. `approve` sees the model's bytes before
 * they are compiled, and throws where they should not be.
 */
export async function loadBundle(bundle, approve = () => {}) {
  const [text, spec, bytes] = await Promise.all([
    fetched(`${bundle}labels.txt`).then((answer) => answer.text()),
    fetched(`${bundle}preprocess.json`).then((answer) => answer.json()),
    fetched(`${bundle}model.tflite`).then((answer) => answer.arrayBuffer()),
    loadLiteRt("wasm/").catch((error) => {  // an Event where a script of it is missing
      throw new Error(error?.message ?? "LiteRT.js can't be loaded from wasm/: a file is missing, or not to be read");
    }),
  ]);
  const approved = await approve(bytes, bundle);
  const model = await loadAndCompile(new Uint8Array(bytes), {accelerator: "wasm"});
  return {bundle, approved, labels: text.replace(/\n$/, "").split("\n"), spec, model};
}

/** Fetch what must be there. */
export async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return answer;
}

/** Decode an image file, a Blob, upright and without its colour profile, as training does. */
export async function decode(file) {
  const blob = new Blob(withoutProfile(await file.arrayBuffer()), {type: file.type});
  return createImageBitmap(blob, {colorSpaceConversion: "none", premultiplyAlpha: "none"});
}

/** The input's pixels of an image or a video, RGB in 0 to 255; transparent ones show white, as on a page. */
export function pixels(source, spec) {
  const width = source.videoWidth ?? source.width, height = source.videoHeight ?? source.height;
  const data = read(source, width, height);
  return resample({data, width, height}, square(width, height, spec), spec.size, spec.filter);
}

/** RGBA on white, strip by strip: a phone's photograph is more than an iPhone's canvas may hold. */
function read(source, width, height) {
  const data = new Uint8ClampedArray(4 * width * height), rows = Math.min(height, Math.ceil(STRIP / width));
  const context = new OffscreenCanvas(width, rows).getContext("2d", {willReadFrequently: true});
  context.fillStyle = "white";
  for (let row = 0; row < height; row += rows) {
    context.fillRect(0, 0, width, rows);
    context.drawImage(source, 0, -row);
    const strip = context.getImageData(0, 0, width, Math.min(rows, height - row)).data;
    if (strip[3] !== 255) throw new Error(`the photograph is too large for this browser: ${width} x ${height}`);
    data.set(strip, 4 * width * row);
  }
  return data;
}

/** The part that the network sees: the centre square, or all of it, stretched. */
function square(width, height, {resize, crop_fraction}) {
  if (resize === "stretch") return {left: 0, top: 0, right: width, bottom: height};
  const side = Math.min(width, height) * crop_fraction, left = (width - side) / 2, top = (height - side) / 2;
  return {left, top, right: left + side, bottom: top + side};
}

/** Run the model on an input: an array of its type and shape in, a Float32Array of probabilities out. */
export async function run({model, spec}, input) {
  const values = spec.input.dtype === "float32" ? Float32Array.from(input) : Uint8Array.from(input);
  const tensor = new Tensor(values, spec.input.shape);
  const [output] = await model.run([tensor]);
  const found = await output.data();
  tensor.delete();
  output.delete();
  return found;
}

/** The places of the `count` largest values, the largest first. */
export const top = (values, count) => [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, count);
