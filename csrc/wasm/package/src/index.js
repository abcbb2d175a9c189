// fastcam-web: an exported file runs in onnxruntime-web, and FastCAM's kernels make heatmaps and boxes of its outputs.

export { Explainer } from "./explainer.js";
export { Explanation } from "./explanation.js";
export { Kernels } from "./kernels.js";
export { readModelFile } from "./model_file.js";
export { pixelsOf } from "./pixels.js";
export { shortLabel } from "./targets.js";
