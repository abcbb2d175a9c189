// FastCAM's kernels in WebAssembly: pictures into tensors, activations and weights into heatmaps and boxes.

const RESIZES = ["stretch", "crop", "letterbox"], COLORS = ["RGB", "BGR", "GRAY"];
export const STATUS = ["ok", "all_negative", "zero_gradient", "non_finite"];

async function moduleOf(source) {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return WebAssembly.compile(source);
  const answer = source instanceof Response ? source : await fetch(source);
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}; kernels.wasm is not where it is looked for`);
  return WebAssembly.compile(await answer.arrayBuffer());
}

export class Kernels {
  #c;
  #rooms = new Map();
  #workspace;

  /** @param source where kernels.wasm is: an address, a Response, its bytes or a compiled module. */
  static async load(source = new URL("../kernels.wasm", import.meta.url)) {
    return new Kernels(await WebAssembly.instantiate(await moduleOf(source), {}));
  }

  constructor(instance) {
    this.#c = instance.exports;
    this.#c._initialize();
    this.#workspace = this.#c.fastcam_workspace_new();
    if (!this.#workspace) throw new Error("no memory for the kernels");
  }

  /** The functions of fastcam/cam.h, with memory, malloc and free; extents are BigInt there. */
  get exports() {
    return this.#c;
  }

  // A place of its own for each name, which grows and is kept.
  #room(name, bytes) {
    const known = this.#rooms.get(name);
    if (known && known.bytes >= bytes) return known.at;
    if (known) this.#c.free(known.at);
    this.#rooms.delete(name);
    const at = this.#c.malloc(Math.max(bytes, 16));
    if (!at) throw new Error(`no memory for ${bytes} bytes; give a smaller picture`);
    this.#rooms.set(name, { at, bytes });
    return at;
  }

  #put(name, array) {
    const at = this.#room(name, array.byteLength);
    new Uint8Array(this.#c.memory.buffer, at, array.byteLength).set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return at;
  }

  #take(Type, at, length) {
    return new Type(this.#c.memory.buffer, at, length).slice();
  }

  #done(code) {
    if (code !== 0) throw new Error(code === 2 ? "no memory for the kernels" : `the kernels refused their arguments (${code})`);
  }

  /**
   * A picture as the model's input, with the bits of FastCAM's Python.
   * @param image {data: RGBA bytes, width, height}
   * @param how the preprocessing of a file's metadata
   * @param size [height, width] of the input
   */
  prepare(image, how, size) {
    if (!COLORS.includes(how.color)) throw new Error(`pictures of color ${how.color} cannot be prepared here`);
    const channels = how.color === "GRAY" ? 1 : 3;
    const each = (numbers) => [0, 1, 2].map((c) => numbers[numbers.length === 1 ? 0 : c] ?? numbers[0]);
    const said = Float64Array.from([RESIZES.indexOf(how.resize), how.crop_fraction, COLORS.indexOf(how.color), how.scale,
      ...each(how.mean), ...each(how.std), how.layout === "NHWC" ? 1 : 0, how.pad_value]);
    const pixels = this.#put("pixels", image.data), parameters = this.#put("how", said);
    const count = channels * size[0] * size[1];
    const out = this.#room("tensor", 4 * count), geometry = this.#room("geometry", 48);
    const code = this.#c.prepare(pixels, image.height, image.width, size[0], size[1], parameters, out, geometry);
    if (code !== 0) throw new Error("the picture is too large for the model's input; make it smaller");
    return { tensor: this.#take(Float32Array, out, count), geometry: this.#take(Int32Array, geometry, 12) };
  }

  /**
   * Heatmaps and boxes of one image.
   * @param task activations [K, h, w] (float32, or the bits of float16 as Uint16Array) and weights [T, K]; or signed maps
   *   [T, h, w] and weights null
   */
  explain({ activations, weights, targets, channels, height, width, size, threshold, connectivity, window }) {
    const half = activations instanceof Uint16Array, area = height * width, large = size[0] * size[1];
    const a = this.#put("activations", activations), w = weights ? this.#put("weights", weights) : 0;
    const where = this.#put("window", window ?? Int32Array.of(0, 0, size[1], size[0]));
    const maps = this.#room("maps", 4 * targets * area), status = this.#room("status", targets);
    const heat = this.#room("heat", 4 * targets * large), counts = this.#room("counts", 4 * targets);
    const largest = this.#room("largest", 20 * targets), rows = this.#room("rows", 4);
    this.#done(this.#c.explain(this.#workspace, a, half ? 1 : 0, w, targets, channels, height, width, size[0], size[1],
      threshold, connectivity, where, maps, status, heat, counts, largest));
    const found = this.#c.components(this.#workspace, rows);
    return {
      maps: this.#take(Float32Array, maps, targets * area),
      status: this.#take(Uint8Array, status, targets),
      heatmaps: this.#take(Float32Array, heat, targets * large),
      counts: this.#take(Int32Array, counts, targets),
      largest: this.#take(Int32Array, largest, 5 * targets),
      components: this.#take(Int32Array, found, 5 * this.#take(Int32Array, rows, 1)[0]),
    };
  }

  /** A box in pixels of the network's input in pixels of the picture. */
  toOriginal(geometry, box) {
    const out = this.#room("box", 16);
    this.#c.to_original(this.#put("geometry", geometry), this.#put("given", Int32Array.from(box)), out);
    return [...this.#take(Float32Array, out, 4)];
  }

  /** A heatmap of the network's input at the size of the picture. */
  place(heatmap, geometry) {
    const count = geometry[0] * geometry[1], out = this.#room("placed", 4 * count);
    this.#done(this.#c.place(this.#put("heat", heatmap), this.#put("geometry", geometry), out));
    return this.#take(Float32Array, out, count);
  }

  /** Pixels (RGBA) with a heatmap of the same size over them. */
  overlay(pixels, heatmap, alpha) {
    const at = this.#put("pixels", pixels);
    this.#done(this.#c.overlay(at, this.#put("placed", heatmap), alpha, heatmap.length));
    return this.#take(Uint8ClampedArray, at, pixels.length);
  }
}
