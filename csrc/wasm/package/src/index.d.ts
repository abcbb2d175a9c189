// Types of fastcam-web.

/** A picture file, a loaded image, a canvas, a video or camera, a frame of one, or RGBA pixels. */
export type Picture =
  | Blob | ImageBitmap | HTMLImageElement | HTMLCanvasElement | OffscreenCanvas | HTMLVideoElement | VideoFrame | Pixels;

export interface Pixels {
  /** RGBA, row by row. */
  data: Uint8ClampedArray | Uint8Array;
  width: number;
  height: number;
}

/** A class index, a rank (-1: the class with the highest score, -2: the second) or a class name. */
export type Target = number | string;
export type Method = "gradcam" | "gradcam++" | "xgradcam" | "hirescam" | "elementwise" | "layercam";
export type Status = "ok" | "all_negative" | "zero_gradient" | "non_finite" | "no_positive" | "constant";
/** x0, y0, x1, y1 in pixels of the picture, half-open. */
export type Box = [number, number, number, number];
/** Height and width. */
export type Size = [number, number];

/** What is needed of the module onnxruntime-web. */
export interface Runtime {
  InferenceSession: { create(model: Uint8Array, options?: object): Promise<any> };
  Tensor: new (type: any, data: any, dims: readonly number[]) => any;
}

export interface Preprocessing {
  size: Size | null;
  resize: "stretch" | "crop" | "letterbox";
  crop_fraction: number;
  color: "RGB" | "BGR" | "GRAY";
  scale: number;
  mean: number[];
  std: number[];
  layout: "NCHW" | "NHWC";
  pad_value: number;
  stack?: number;
}

/** The metadata of an exported file, as far as it is read here; docs/reference/file.md has all of it. */
export interface Metadata {
  schema: 1;
  emit: "weights" | "gradients" | "cam";
  input: string;
  input_shape: (number | string)[];
  preprocessing: Preprocessing | null;
  labels?: string[] | null;
  method: string;
  score: { output: string; classes: number | null; axis?: number; single?: "" | "logit" | "probability" };
  size_step?: number;
  [field: string]: unknown;
}

export interface Options {
  /** Boxes surround what reaches this share of the heatmap's maximum: above 0, at most 1; 0.15 by default. */
  threshold?: number;
  /** Which pixels are neighbours; 8 by default. */
  connectivity?: 4 | 8;
  method?: Method;
}

export interface ExplainedTarget {
  class: number;
  label: string | null;
  score: number;
  status: Status;
  /** Of the largest component; null where the map explains nothing. */
  box: Box | null;
  components: { box: Box; pixels: number }[];
  /** After ReLU, of the layer's size. */
  map: Float32Array;
  mapSize: Size;
  /** 0..1, of the network input's size. */
  heatmap: Float32Array;
  heatmapSize: Size;
}

export interface Scored {
  class: number;
  label: string | null;
  score: number;
}

export class Explanation {
  readonly image: Pixels;
  /** All outputs of the run, tensors of onnxruntime-web by name. */
  readonly outputs: Record<string, any>;
  readonly labels: string[] | null;
  readonly options: Required<Options>;
  readonly scores: Float32Array;
  readonly targets: ExplainedTarget[];
  /** The same run with other options; the model does not run again. */
  again(options: Options): Explanation;
  /** The classes with the highest scores. */
  top(count?: number): Scored[];
  /** The heatmap at the size of the picture: float32 [height * width] in 0..1. */
  heatmap(target?: number): Float32Array;
  /** The picture under the heatmap: RGBA of the picture's size. */
  overlay(target?: number, alpha?: number): Uint8ClampedArray;
  /** Draw picture, heatmap and box onto a canvas, which takes the picture's size. */
  draw(canvas: HTMLCanvasElement | OffscreenCanvas, target?: number, options?: { alpha?: number; box?: boolean }): void;
}

export type Bytes = string | URL | Response | Blob | ArrayBuffer | Uint8Array;

export interface LoadOptions {
  /** The kernels, or where kernels.wasm is; by default beside the package's sources. */
  kernels?: Kernels | string | URL | Response | BufferSource | WebAssembly.Module;
  /** Session options of onnxruntime-web, such as { executionProviders: ["webgpu", "wasm"] }. */
  session?: object;
  /** Files that hold weights, by name; by default they are fetched from beside the model's address. */
  external?: Record<string, Bytes>;
}

export class Explainer {
  static load(ort: Runtime, model: Bytes, options?: LoadOptions): Promise<Explainer>;
  readonly session: any;
  readonly metadata: Metadata;
  readonly kernels: Kernels;
  readonly labels: string[] | null;
  readonly methods: Method[];
  explain(image: Picture, options?: Options & { targets?: Target | Target[] }): Promise<Explanation>;
  /** The model's input of a picture, and the way back to it. */
  prepare(image: Picture): Promise<{ pixels: Pixels; size: Size; geometry: Int32Array; input: any }>;
  inputSize(image: { height: number; width: number }): Size;
  options(options: Options): Required<Options>;
  release(): Promise<void>;
}

export interface KernelTask {
  /** [channels, height, width] (float32, or the bits of float16) where there are weights; else maps [targets, height, width]. */
  activations: Float32Array | Uint16Array;
  weights: Float32Array | null;
  targets: number;
  channels: number;
  height: number;
  width: number;
  size: Size;
  threshold: number;
  connectivity: 4 | 8;
  /** x0, y0, x1, y1 outside of which no pixel counts for boxes. */
  window?: Int32Array;
}

export interface KernelResult {
  maps: Float32Array;
  status: Uint8Array;
  heatmaps: Float32Array;
  counts: Int32Array;
  largest: Int32Array;
  components: Int32Array;
}

export class Kernels {
  static load(source?: string | URL | Response | BufferSource | WebAssembly.Module): Promise<Kernels>;
  /** The functions of fastcam/cam.h, with memory, malloc and free; 64-bit extents are BigInt there. */
  readonly exports: Record<string, any>;
  prepare(image: Pixels, how: Preprocessing, size: Size): { tensor: Float32Array; geometry: Int32Array };
  explain(task: KernelTask): KernelResult;
  toOriginal(geometry: Int32Array, box: ArrayLike<number>): number[];
  place(heatmap: Float32Array, geometry: Int32Array): Float32Array;
  overlay(pixels: Uint8ClampedArray | Uint8Array, heatmap: Float32Array, alpha: number): Uint8ClampedArray;
}

/** Metadata, names of the files that hold weights, and the bytes as onnxruntime-web takes them. */
export function readModelFile(bytes: Uint8Array): { metadata: Metadata; external: string[]; bytes: Uint8Array };
/** RGBA of a picture; files turn as their EXIF orientation says. */
export function pixelsOf(source: Picture): Promise<Pixels>;
/** The first name in a label. */
export function shortLabel(label: string): string;
