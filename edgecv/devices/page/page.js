// Does in a page what edgecv/worker.py does in a process: the same jobs, and the same answers.
import {getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor} from "@litertjs/core";

const ACCELERATORS = {cpu: "wasm", gpu: "webgpu"};
const MAX_SAMPLES = 100_000;

class Refused extends Error {}

/** Do one job, and give its answer; a reason why it can't be done is an answer too. */
window.work = async (job) => {
  try {
    return await answer(job);
  } catch (error) {
    return {refused: error instanceof Refused ? error.message : String(error)};
  }
};

async function answer(job) {
  if (job.do === "facts") return {adapter: await adapter()};
  const file = new Uint8Array(await fetched("model"));
  const begin = performance.now();
  const model = await compiled(file, job);
  const found = {init_ms: performance.now() - begin, inputs: specs(model.getInputDetails()), outputs: specs(model.getOutputDetails())};
  if (job.do === "predict") return {...found, ...await predict(model, found, job)};
  const inputs = await Promise.all(found.inputs.map((spec) => feed(spec, job.images)));
  if (job.do === "bench") return {...found, ...await bench(model, inputs, job)};
  await invoke(model, inputs);
  return found;
}

/** What WebGPU runs on here, null where nothing does. */
async function adapter() {
  const found = await navigator.gpu?.requestAdapter({powerPreference: "high-performance"}), info = found?.info;
  // Older browsers tell it of the adapter itself; of one that tells it of neither, no figure may pass for a GPU's.
  const software = info?.isFallbackAdapter ?? found?.isFallbackAdapter ?? true;
  return info ? {vendor: info.vendor, architecture: info.architecture, software} : null;
}

async function compiled(file, {accelerator, threads, precision}) {
  await loadLiteRt("core/wasm/", {threads: threads > 1});
  if (accelerator === "gpu" && !getWebGpuDevice()) throw new Refused("the browser has no WebGPU adapter");
  const options = {accelerator: ACCELERATORS[accelerator], cpuOptions: {numThreads: threads}};
  if (precision === "float32") options.gpuOptions = {precision: "fp32"};
  const model = await loadAndCompile(file, options);
  if (accelerator === "gpu" && !model.isFullyAccelerated) throw new Refused("WebGPU does not run all of its operators");
  return model;
}

const specs = (details) => details.map(({name, shape, dtype}) => ({name, shape: [...shape], dtype, scale: 0, zero_point: 0}));

/** Pixels in this page's memory to the first output in it. */
async function invoke(model, inputs) {
  const tensors = inputs.map(({values, shape}) => new Tensor(values, shape));
  const outputs = await model.run(tensors);
  const found = await outputs[0].data();
  for (const tensor of [...tensors, ...outputs]) tensor.delete();
  return found;
}

async function predict(model, {inputs, outputs}, {images: {count, shape, together}}) {
  const [spec] = inputs, found = [];
  if (inputs.length !== 1 || !fits(spec, shape)) {
    throw new Refused(`takes ${spec.dtype} [${spec.shape}], not one uint8 image of [${[1, ...shape]}]`);
  }
  for (let first = 0; first < count; first += together) {
    for (const values of await photographs(first, shape)) {
      found.push(Float32Array.from(await invoke(model, [{values, shape: spec.shape}])));
    }
  }
  if (!count) throw new Refused("there are no images to run");
  const sent = await fetch("outputs", {method: "POST", body: new Blob(found)});
  if (!sent.ok) throw new Error(`outputs: ${sent.status}`);
  return {output_shape: [count, ...outputs[0].shape.slice(1)]};
}

/** Time invocations: the first, a warm-up that is dropped, then steady ones for `seconds`. */
async function bench(model, inputs, {warmup_seconds, seconds}) {
  const timed = async () => {
    const begin = performance.now();
    await invoke(model, inputs);
    return performance.now() - begin;
  };
  const first_ms = await timed(), latencies_ms = [];
  let end = performance.now() + 1000 * warmup_seconds;
  while (performance.now() < end) await invoke(model, inputs);
  end = performance.now() + 1000 * seconds;
  while ((performance.now() < end || !latencies_ms.length) && latencies_ms.length < MAX_SAMPLES) latencies_ms.push(await timed());
  return {first_ms, latencies_ms};
}

const fits = (spec, image) => spec.dtype === "uint8" && String(spec.shape) === String([1, ...image]);

const product = (shape) => shape.reduce((one, two) => one * two, 1);

/** Photographs that are sent together, from the number of the first. */
async function photographs(first, shape) {
  const bytes = new Uint8Array(await fetched(`images/${first}`)), size = product(shape);
  return Array.from({length: bytes.length / size}, (_, index) => bytes.subarray(index * size, (index + 1) * size));
}

/** One input: the first photograph where the model takes it, else seeded noise. */
async function feed(spec, images) {
  if (images && fits(spec, images.shape)) return {values: (await photographs(0, images.shape))[0], shape: spec.shape};
  if (Math.min(...spec.shape) < 1) throw new Refused(`input ${spec.name} has the dynamic shape [${spec.shape}]`);
  return {values: noise(spec.dtype, product(spec.shape)), shape: spec.shape};
}

/** Numbers of a linear congruential generator: 0 to 1 in float32, -128 to 255 in integers that hold them. */
function noise(dtype, count) {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const byte = () => Math.floor(256 * next()), wide = () => Math.floor(384 * next()) - 128;
  if (dtype === "uint8") return Uint8Array.from({length: count}, byte);
  return dtype === "int32" ? Int32Array.from({length: count}, wide) : Float32Array.from({length: count}, next);
}

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.arrayBuffer();
}
