// Prove that this page answers as the model did where it was verified: golden/ holds photographs and what it gave.
import {decode, fetched, pixels, run, top} from "./classifier.js";

/** Compare labels, preprocessing and model with golden.json; give each figure, and whether it is good. */
export async function selfTest(classifier) {
  const {bundle, labels, spec, model} = classifier;
  const golden = await (await fetched(`${bundle}golden/golden.json`)).json();
  const checks = [said(classifier, golden), taken(model, spec)];
  for (const entry of checks.every(({good}) => good) ? golden.images : []) {
    const input = await inputOf(entry, classifier);
    const off = farthest(await run(classifier, input), entry.outputs);
    const own = pixels(await decode(await (await fetched(`${bundle}golden/${entry.image}`)).blob()), spec);
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
  const named = golden.images.every(({outputs, label}) => outputs.length === labels.length && labels[top(outputs, 1)[0]] === label);
  if (!named || (golden.labels && text(golden.labels) !== text(labels))) wrong.push("labels.txt");
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
