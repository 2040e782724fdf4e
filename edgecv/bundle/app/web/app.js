// Shows what the model of this bundle sees in a photograph or in the camera; `?self-test` proves the page right.
import {decode, loadBundle, pixels, run, top} from "./classifier.js";
import {selfTest, verified} from "./self_test.js";

const at = (id) => document.getElementById(id);
const [stage, shown, camera, live, answers, heard, status] = ["stage", "shown", "camera", "live", "answers", "heard", "status"].map(at);
const SHOWN = 1440;  // pixels that the longer side of a photograph is shown with: 30rem on a screen of 3 pixels to one

let turn = 0;  // counts starts and stops: what is given later than the next one is not wanted any more

/** Classify an image or a video's frame, and show the five likeliest labels with the times it took. */
async function show(classifier, source) {
  const mine = turn;
  const begin = performance.now();
  const input = pixels(source, classifier.spec);
  const ready = performance.now();
  const found = await run(classifier, input);
  const end = performance.now();
  if (mine !== turn) return;
  const first = top(found, 5);
  answers.replaceChildren(...first.map((place) => answer(classifier.labels[place], found[place])));
  hear(classifier.labels[first[0]]);
  tell(`${(ready - begin).toFixed(1)} ms for the pixels, ${(end - ready).toFixed(1)} ms for the model`);
}

let due = 0;  // when the next answer may be announced

/** Let a screen reader say the first answer: where it is another one, and not with each frame of the camera. */
function hear(label) {
  if (label === heard.textContent || performance.now() < due) return;
  heard.textContent = label;
  due = performance.now() + 2000;
}

function answer(label, probability) {
  const item = document.createElement("li"), share = document.createElement("span");
  share.textContent = `${(100 * probability).toFixed(1)} %`;
  item.style.setProperty("--share", `${100 * probability}%`);
  item.append(label, share);
  return item;
}

function tell(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function showFile(classifier, file) {
  const mine = begin();
  const image = await decode(file).catch(() => null);
  if (mine !== turn) return image?.close();
  if (!image) throw new Error(`${file.name} is not an image that this browser reads`);
  draw(image);
  only(shown);
  await show(classifier, image).finally(() => image.close());
}

/** Begin with another photograph or the camera: nothing that was shown before stays. */
function begin() {
  stop();
  only(at("hint"));
  answers.replaceChildren();
  heard.textContent = "";
  due = 0;
  tell("");
  return turn;
}

/** Draw a photograph no larger than it is shown: a phone's canvas may hold less than its camera gives. */
function draw(image) {
  const scale = Math.min(1, SHOWN / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.ceil(scale * side));
  Object.assign(shown, {width, height});
  shown.getContext("2d").drawImage(image, 0, 0, width, height);
}

/** Show one of what is in the stage. */
function only(wanted) {
  for (const one of stage.children) one.hidden = one !== wanted;
}

async function start(classifier) {
  const mine = begin();
  live.disabled = true;
  try {
    if (!navigator.mediaDevices) throw new Error("open this page over https, or from localhost");
    const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    if (mine !== turn) return end(stream);
    camera.srcObject = stream;
    await camera.play();
    only(camera);
    live.setAttribute("aria-pressed", "true");
    status.setAttribute("aria-live", "off");  // it gets other figures with each frame
  } catch (error) {
    if (mine !== turn) return;
    stop();
    throw new Error(`the camera can't be used: ${error.message}`);
  } finally {
    live.disabled = false;
  }
  while (mine === turn) {
    await show(classifier, camera).catch((error) => {
      if (mine === turn) stop();
      throw error;
    });
    await new Promise(requestAnimationFrame);
  }
}

function stop() {
  turn++;
  end(camera.srcObject);
  camera.srcObject = null;
  live.setAttribute("aria-pressed", "false");
  status.setAttribute("aria-live", "polite");
}

const end = (stream) => stream?.getTracks().forEach((track) => track.stop());

/** Do what somebody asked for, and say in words what went wrong. */
const asked = (action) => (...given) => action(...given).catch((error) => tell(error.message, true));

async function test(classifier) {
  const checks = await selfTest(classifier);
  at("checks").replaceChildren(...checks.map(({good, text}) => {
    const item = document.createElement("li");
    item.textContent = text;
    item.classList.toggle("bad", !good);
    return item;
  }));
  return checks.every(({good}) => good);
}

async function main() {
  tell("Loading the model …");
  const testing = new URLSearchParams(location.search).has("self-test");
  at("self-test").hidden = !testing;
  let passed = false;
  try {
    const classifier = await loadBundle("../../", testing ? verified : undefined);
    const pick = asked((files) => files[0] ? showFile(classifier, files[0]) : Promise.resolve());
    at("file").onchange = ({target}) => pick(target.files);
    live.onclick = asked(() => live.ariaPressed === "true" ? Promise.resolve(stop()) : start(classifier));
    stage.ondragover = (event) => { event.preventDefault(); stage.classList.add("over"); };
    stage.ondragleave = () => stage.classList.remove("over");
    stage.ondrop = (event) => { event.preventDefault(); stage.classList.remove("over"); pick(event.dataTransfer.files); };
    tell(`${classifier.labels.length} classes`);
    if (testing) passed = await test(classifier);
    else await run(classifier, new Uint8Array(3 * classifier.spec.size ** 2));  // the first run is slower than the rest
  } catch (error) {
    tell(error.message, true);
  }
  if (testing) document.documentElement.dataset.selfTest = passed ? "passed" : "failed";
  document.documentElement.dataset.ready = "";
}

await main();
