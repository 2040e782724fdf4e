// Prove that this page answers as the model did where it was verified: golden/ holds photographs and what it gave.
import {decode, fetched, pixels, run, top} from "./classifier.js";

const read = async (bundle) => (await fetched(`${bundle}golden/golden.json`)).json();

/** Refuse a model whose bytes, by SHA-256, are not those that were verified: before anything is made of them. */
export async function verified(bytes, bundle) {
  const {files} = await read(bundle);
  if (!globalThis.crypto?.subtle) throw new Error("the model's bytes can't be compared: open this page over https, or from localhost");
  const digest = [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (digest !== files["model.tflite"]) throw new Error("model.tflite is not the file that was verified");
  return check(true, "the model's bytes are those that were verified");
}

/** Compare what `loadBundle(bundle, verified)` gave with golden.json; give each figure, and whether it is good. */
export async function selfTest(classifier) {
  const {bundle, approved, labels, spec, model} = classifier;
  const golden = await read(bundle), count = golden.images.length;
  const bytes = approved ?? check(false, "the model's bytes were not compared");
  const checks = [bytes, said(classifier, golden), taken(model, spec), check(count > 0, `${count} golden photographs`)];
  for (const entry of checks.every(({good}) => good) ? golden.images : []) {
    const input = await inputOf(entry, classifier);
    const off = farthest(await run(classifier, input), entry.outputs);
    const image = await decode(await (await fetched(`${bundle}golden/${entry.image}`)).blob()), own = pixels(image, spec);
    image.close();
    const drift = mean(own, input), answer = labels[top(await run(classifier, own), 1)[0]];
    checks.push(check(off <= golden.tolerance && drift <= golden.pixel_tolerance && answer === entry.label,
      `${entry.image}: outputs differ by ${figure(off)} (at most ${golden.tolerance}), pixels by ${figure(drift)} grey levels ` +
      `(at most ${golden.pixel_tolerance}), answer ${answer}, expected ${entry.label}`));
  }
  return checks;
}

const check = (good, text) => ({good, text});
const figure = (value) => value.toPrecision(2);

/** labels.txt and preprocess.json, as golden.json has them. */
function said({labels, spec}, golden) {
  const wrong = Object.keys(golden.preprocess).filter((key) => text(golden.preprocess[key]) !== text(spec[key]));
  if (text(golden.labels) !== text(labels)) wrong.push("labels.txt");
  return check(!wrong.length, wrong.length ? `not as in golden.json: ${wrong.join(", ")}` : "labels and preprocessing as in golden.json");
}

/** What the model takes, as preprocess.json has it. */
function taken(model, {input}) {
  const [{shape, dtype}] = model.getInputDetails();
  const good = dtype === input.dtype && text([...shape]) === text(input.shape);
  return check(good, `the model takes ${dtype} ${text([...shape])}`);
}

/** JSON with sorted keys: two values are the same where this is. */
const text = (value) => JSON.stringify(value, (_, one) =>
  one && typeof one === "object" && !Array.isArray(one) ? Object.fromEntries(Object.entries(one).sort()) : one);

async function inputOf({input}, {bundle, spec}) {
  const bytes = await (await fetched(`${bundle}golden/${input}`)).arrayBuffer();
  return spec.input.dtype === "float32" ? new Float32Array(bytes) : new Uint8Array(bytes);
}

const farthest = (found, expected) => found.length === expected.length
  ? found.reduce((most, value, index) => Math.max(most, Math.abs(value - expected[index])), 0) : NaN;

const mean = (one, two) => one.length === two.length
  ? one.reduce((sum, value, index) => sum + Math.abs(value - two[index]), 0) / one.length : NaN;
