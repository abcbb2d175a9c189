// An exported file in onnxruntime-web.

import { Explanation } from "./explanation.js";
import { Kernels } from "./kernels.js";
import { readModelFile } from "./model_file.js";
import { FROM_GRADIENTS, NAMES } from "./outputs.js";
import { pixelsOf } from "./pixels.js";
import { targetNumber } from "./targets.js";

// As Python rounds: halves to the even neighbour.
const round = (x) => (x - Math.floor(x) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// Layouts of layers whose activations are no maps.
const ON_ONE_AXIS = ["NCW", "NWC", "LNC", "NCL"];

// What a file must be to be explained here; the first reason why it is not, or "".
function refusal(about) {
  const again = "export it again with --for-engine web";
  if (about.input_shape.length !== 4 || about.words || about.order?.match(/[TDL]/)) return "the model takes no single picture";
  if (about.cotangents?.length) return `the file explains cotangents, of which this page knows nothing; export it without them`;
  if (about.frames) return `the file takes frames of one size; ${again}, and without --frames`;
  if (about.pair) return `the file is one of two; ${again}, and without --on-demand`;
  if (about.fuse) return "the maps of the file's layers become one, and this page shows one layer; export it again with one --layer";
  if ([about.layer, ...(about.layers ?? [])].some((one) => ON_ONE_AXIS.includes(one.layout))) {
    return `${about.layer.value} has one axis of positions, and this page shows maps; choose another --layer`;
  }
  if (about.inputs?.length) return `the model has further inputs (${about.inputs.map((one) => one.name).join(", ")})`;
  if (!about.preprocessing) return `the file does not say how pictures are prepared; ${again} and --preprocess`;
  if ((about.preprocessing.stack ?? 1) !== 1) return "the model takes several frames at once";
  if (!["RGB", "BGR", "GRAY"].includes(about.preprocessing.color)) return `the model takes pictures of ${about.preprocessing.color}`;
  return "";
}

export class Explainer {
  #ort;

  /**
   * Load an exported file.
   * @param ort the module onnxruntime-web
   * @param model address, File or bytes of a .cam.onnx file
   * @param options kernels: a Kernels, or where kernels.wasm is; session: onnxruntime-web's session options; external:
   *   the bytes or files that hold weights, by name; without it they are fetched from beside the model's address
   */
  static async load(ort, model, { kernels, session = {}, external = {} } = {}) {
    const address = typeof model === "string" || model instanceof URL ? new URL(model, globalThis.location?.href) : null;
    const [made, bytes] = await Promise.all(
      [kernels instanceof Kernels ? kernels : Kernels.load(kernels), bytesOf(address ?? model)]);
    const file = readModelFile(bytes);
    const why = refusal(file.metadata);
    if (why) throw new Error(why);
    const externalData = await Promise.all(file.external.map(async (path) => {
      const data = external[path] ?? (address && new URL(path, address));
      if (!data) throw new Error(`the weights lie in ${path}; give that file too`);
      return { path, data: await bytesOf(data) };
    }));
    const more = externalData.length ? { externalData } : {};
    const opened = await ort.InferenceSession.create(file.bytes, { ...more, ...session });
    const type = opened.inputMetadata?.find((one) => one.name === file.metadata.input)?.type ?? "float32";
    if (type !== "float32") {
      await opened.release();
      throw new Error(`the model takes pictures of ${type}, and this page prepares float32`);
    }
    return new Explainer(ort, opened, file.metadata, made);
  }

  constructor(ort, session, metadata, kernels) {
    this.#ort = ort;
    this.session = session;
    this.metadata = metadata;
    this.kernels = kernels;
    this.labels = metadata.labels ?? null;
  }

  /** The methods that the file can serve here. */
  get methods() {
    return this.metadata.emit === "gradients" ? FROM_GRADIENTS : ["gradcam"];
  }

  /** [height, width] of the network's input for a picture. */
  inputSize(image) {
    const how = this.metadata.preprocessing;
    if (how.size) return how.size;
    const sides = how.layout === "NHWC" ? this.metadata.input_shape.slice(1, 3) : this.metadata.input_shape.slice(2, 4);
    const fixed = sides.map((side) => (typeof side === "number" ? side : null)), step = this.metadata.size_step ?? 1;
    const own = [image.height, image.width], index = fixed.findIndex((side) => side !== null);
    const scale = index < 0 ? 1 : fixed[index] / own[index];
    return own.map((side, i) => fixed[i] ?? Math.max(step, round((side * scale) / step) * step));
  }

  /**
   * The model's input of a picture, and the way back to it.
   * @param image what {@link pixelsOf} takes
   */
  async prepare(image) {
    const pixels = await pixelsOf(image);
    const how = this.metadata.preprocessing, size = this.inputSize(pixels);
    const { tensor, geometry } = this.kernels.prepare(pixels, how, size);
    const batch = typeof this.metadata.input_shape[0] === "number" ? this.metadata.input_shape[0] : 1;
    const filled = new Float32Array(batch * tensor.length);  // a batch that is fixed is filled up
    for (let n = 0; n < batch; ++n) filled.set(tensor, n * tensor.length);
    const channels = how.color === "GRAY" ? 1 : 3;
    const dims = how.layout === "NHWC" ? [batch, ...size, channels] : [batch, channels, ...size];
    return { pixels, size, geometry, input: new this.#ort.Tensor("float32", filled, dims) };
  }

  /** Options of an explanation, checked: threshold of the boxes, connectivity 4 or 8, method. */
  options({ threshold = 0.15, connectivity = 8, method = this.metadata.method }) {
    if (!(threshold > 0 && threshold <= 1)) throw new Error(`threshold is ${threshold}; give a number above 0, at most 1`);
    if (connectivity !== 4 && connectivity !== 8) throw new Error(`connectivity is ${connectivity}; give 4 or 8`);
    if (!this.methods.includes(method)) {
      const lacks = this.metadata.emit === "gradients" ? "" : "; export it with --emit gradients for others";
      throw new Error(`method is ${method}, and this file serves ${this.methods.join(", ")} here${lacks}`);
    }
    return { threshold, connectivity, method };
  }

  /**
   * Explain a picture.
   * @param image what {@link pixelsOf} takes
   * @param options targets: classes, by index, rank (-1: the predicted one) or name; and those of {@link options}
   */
  async explain(image, { targets = [-1], ...options } = {}) {
    const checked = this.options(options);
    const asked = (Array.isArray(targets) ? targets : [targets]).map(
      (target) => targetNumber(target, this.metadata.score.classes, this.labels));
    if (!asked.length) throw new Error("no targets given; give at least one, -1 is the predicted class");
    const prepared = await this.prepare(image), feeds = { [this.metadata.input]: prepared.input };
    if (this.session.inputNames.includes(NAMES.targets)) {
      feeds[NAMES.targets] = new this.#ort.Tensor("int64", BigInt64Array.from(asked, BigInt), [1, asked.length]);
    } else if (asked.length !== 1 || asked[0] !== -1) {
      throw new Error("the file explains the predicted class alone; export it again with --for-engine web");
    }
    return new Explanation(this, prepared, await this.session.run(feeds), checked);
  }

  /** Give back the memory of the session. */
  async release() {
    await this.session.release();
  }
}

async function bytesOf(source) {
  if (source instanceof Uint8Array) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (typeof Blob !== "undefined" && source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  const answer = source instanceof Response ? source : await fetch(source);
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}; the model is not where it is looked for`);
  return new Uint8Array(await answer.arrayBuffer());
}
