// The page that `fastcam web` writes: models and pictures of its folder, or what is dropped on it.

import { Explainer, Kernels, pixelsOf, shortLabel } from "./fastcam-web/src/index.js";

const at = (id) => document.getElementById(id);
const site = await (await fetch("site.json")).json();
const kernels = await Kernels.load(new URL("fastcam-web/kernels.wasm", import.meta.url));
const dropped = new Map();  // models by name: {file, external}
const state = { explainer: null, picture: null, explanation: null, target: -1, stream: null, turn: 0 };
globalThis.fastcam = state;  // for whoever looks in from the console

function say(text, bad = false) {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
}

const failed = (error) => say(error?.message ?? String(error), true);

// ---- models

async function runtime(device) {
  const ort = await import(device === "webgpu" ? "./onnxruntime-web/ort.webgpu.min.mjs" : "./onnxruntime-web/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("onnxruntime-web/", import.meta.url).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  return ort;
}

function fill(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    option.selected = value === chosen;
    return option;
  }));
}

function listModels(chosen) {
  const names = [...site.models.map((one) => one.name), ...dropped.keys()];
  fill(at("model"), names.map((name) => [name, name]), chosen ?? names[0]);
}

async function open() {
  const turn = ++state.turn, name = at("model").value, device = at("device").value;
  say(`loading ${name} ...`);
  const ort = await runtime(device), own = dropped.get(name);
  const source = own ? own.file : new URL(site.models.find((one) => one.name === name).file, import.meta.url);
  const session = { executionProviders: device === "webgpu" ? ["webgpu", "wasm"] : ["wasm"] };
  const explainer = await Explainer.load(ort, source, { kernels, session, external: own?.external });
  if (turn !== state.turn) return explainer.release();
  await state.explainer?.release();
  state.explainer = explainer;
  state.target = -1;
  fill(at("method"), explainer.methods.map((method) => [method, method]), explainer.metadata.method);
  say(`${name} is ready; give it a picture`);
  await explain();
}

// ---- pictures

const options = () => ({ threshold: at("threshold").value / 100, method: at("method").value });

async function explain() {
  if (!state.explainer || !state.picture) return;
  const turn = ++state.turn, start = performance.now();
  if (!state.stream) say("explaining ...");
  const found = await state.explainer.explain(state.picture, { targets: [state.target], ...options() });
  if (turn !== state.turn) return;
  show(found, performance.now() - start);
}

function show(found, milliseconds) {
  state.explanation = found;
  const one = found.targets[0], name = one.label === null ? `class ${one.class}` : shortLabel(one.label);
  const time = milliseconds === undefined ? "" : `, ${milliseconds.toFixed(0)} ms`;
  const status = one.status === "ok" ? "" : ` (${one.status})`;
  say(`${name}: ${Number.isFinite(one.score) ? one.score.toPrecision(3) : "no number"}${status}${time}`);
  at("classes").replaceChildren(...found.top(5).map((each) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = each.label === null ? `class ${each.class}` : shortLabel(each.label);
    button.setAttribute("aria-pressed", String(each.class === one.class));
    button.onclick = () => ask(each.class);
    return button;
  }));
  at("canvas").setAttribute("aria-label", `the picture, and where the model looked for ${name}`);
  draw();
}

function draw() {
  if (!state.explanation) return;
  at("canvas").hidden = false;
  state.explanation.draw(at("canvas"), 0, { alpha: at("alpha").value / 100 });
}

function ask(target) {
  state.target = target;
  if (!state.stream) explain().catch(failed);
}

async function take(files) {
  const models = files.filter((file) => file.name.endsWith(".onnx"));
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  if (models.length) {
    const external = Object.fromEntries(files.filter((file) => !models.includes(file)).map((file) => [file.name, file]));
    for (const file of models) dropped.set(file.name.replace(/(\.cam)?\.onnx$/, ""), { file, external });
    listModels([...dropped.keys()].at(-1));
    await open();
  }
  if (pictures.length) {
    stop();
    state.picture = await pixelsOf(pictures[0]);
    state.target = -1;
    await explain();
  }
  if (!models.length && !pictures.length) throw new Error("that is neither a picture nor a .cam.onnx file");
}

// ---- camera

function stop() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  at("camera").setAttribute("aria-pressed", "false");
}

async function start() {
  if (!navigator.mediaDevices) throw new Error("the browser gives a camera to pages of https or localhost alone");
  const video = at("video");
  state.stream = await navigator.mediaDevices.getUserMedia({ video: true });
  video.srcObject = state.stream;
  await video.play();
  at("camera").setAttribute("aria-pressed", "true");
  state.target = -1;
  while (state.stream) {
    if (state.explainer && video.videoWidth) {
      state.picture = await pixelsOf(video);
      await explain();
    }
    await new Promise((next) => requestAnimationFrame(next));
  }
}

// ---- what people do

at("file").onchange = () => take([...at("file").files]).catch(failed);
at("drop").ondragover = (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
};
at("drop").ondragleave = () => at("drop").classList.remove("over");
at("drop").ondrop = (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take([...event.dataTransfer.files]).catch(failed);
};
at("example").onclick = async () => {
  try {
    const blob = await (await fetch(site.picture)).blob();
    await take([new File([blob], "picture", { type: blob.type || "image/jpeg" })]);
  } catch (error) {
    failed(error);
  }
};
at("camera").onclick = () => {
  if (state.stream) stop();
  else start().catch((error) => {
    stop();
    failed(error);
  });
};
at("alpha").oninput = draw;
at("threshold").oninput = () => {
  at("percent").textContent = at("threshold").value;
  if (state.explanation) show(state.explanation.again(options()));
};
at("method").onchange = () => {
  if (state.explanation) show(state.explanation.again(options()));
};
at("model").onchange = at("device").onchange = () => open().catch(failed);
at("target").onchange = () => at("target").value.trim() && ask(at("target").value.trim());
document.forms[0].onsubmit = (event) => event.preventDefault();

if (site.webgpu && (await navigator.gpu?.requestAdapter().catch(() => null))) {
  const option = document.createElement("option");
  option.value = "webgpu";
  option.textContent = "the GPU (WebGPU)";
  at("device").append(option);
}
listModels();
await open().catch(failed);
globalThis.fastcam.ready = true;
