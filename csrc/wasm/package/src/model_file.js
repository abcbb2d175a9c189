// What an exported file says of itself, read from its bytes: an ONNX ModelProto in protocol buffers' wire format.

const MODEL_GRAPH = 7, MODEL_METADATA = 14, ENTRY_KEY = 1, ENTRY_VALUE = 2;
const GRAPH_INITIALIZER = 5, TENSOR_NAME = 8, TENSOR_EXTERNAL = 13;
const TARGETS = "fastcam.targets";
const text = new TextDecoder();

function varint(bytes, at) {
  let value = 0, factor = 1;
  for (;;) {
    const byte = bytes[at++];
    if (byte === undefined) throw new Error("the file is cut short, or no ONNX file; copy it again");
    value += (byte & 127) * factor;
    if (byte < 128) return [value, at];
    factor *= 128;
  }
}

// The fields of a message: [number, begin, end] of what is of a length, in order; numbers are passed over.
function* fields(bytes, begin, end) {
  let at = begin;
  while (at < end) {
    const tag = at;
    let key, length;
    [key, at] = varint(bytes, at);
    const kind = key % 8;
    if (kind === 0) [, at] = varint(bytes, at);
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      [length, at] = varint(bytes, at);
      if (at + length > end) throw new Error("the file is cut short, or no ONNX file; copy it again");
      yield { number: Math.floor(key / 8), tag, begin: at, end: at + length };
      at += length;
    } else throw new Error("this is no ONNX file; give a .cam.onnx file, which fastcam export writes");
  }
}

function entry(bytes, field) {
  const found = {};
  for (const part of fields(bytes, field.begin, field.end)) {
    if (part.number === ENTRY_KEY || part.number === ENTRY_VALUE) {
      found[part.number] = text.decode(bytes.subarray(part.begin, part.end));
    }
  }
  return [found[ENTRY_KEY] ?? "", found[ENTRY_VALUE] ?? ""];
}

/**
 * Read a file's metadata, the names of the files that hold its weights, and its bytes as onnxruntime-web takes them: it
 * refuses a value for an input that has an initializer, so the default of fastcam.targets is left away.
 */
export function readModelFile(bytes) {
  let metadata = null, graph = null;
  for (const field of fields(bytes, 0, bytes.length)) {
    if (field.number === MODEL_GRAPH) graph = field;
    if (field.number === MODEL_METADATA) {
      const [key, value] = entry(bytes, field);
      if (key === "fastcam") metadata = JSON.parse(value);
    }
  }
  if (metadata === null || graph === null) {
    throw new Error("FastCAM did not export this file; run: fastcam export MODEL.onnx --for-engine web");
  }
  if (metadata.schema !== 1) {
    throw new Error(`the file has metadata schema ${metadata.schema}, and this fastcam-web reads 1; use matching versions`);
  }
  const external = new Set();
  let given = null;
  for (const field of fields(bytes, graph.begin, graph.end)) {
    if (field.number !== GRAPH_INITIALIZER) continue;
    for (const part of fields(bytes, field.begin, field.end)) {
      if (part.number === TENSOR_EXTERNAL) {
        const [key, value] = entry(bytes, part);
        if (key === "location") external.add(value);
      }
      if (part.number === TENSOR_NAME && text.decode(bytes.subarray(part.begin, part.end)) === TARGETS) given = field;
    }
  }
  return { metadata, external: [...external], bytes: given ? without(bytes, graph, given) : bytes };
}

function asVarint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

// The file without one field of its graph.
function without(bytes, graph, field) {
  const [, length] = varint(bytes, graph.tag);
  const size = asVarint(graph.end - graph.begin - (field.end - field.tag));
  const parts = [bytes.subarray(0, length), Uint8Array.from(size), bytes.subarray(graph.begin, field.tag), bytes.subarray(field.end)];
  const made = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}
