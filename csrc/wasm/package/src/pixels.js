// Pictures of a page as pixels.

let surface = null;

function sizeOf(source) {
  const pairs = [["videoWidth", "videoHeight"], ["naturalWidth", "naturalHeight"], ["displayWidth", "displayHeight"],
    ["width", "height"]];
  for (const [w, h] of pairs) if (typeof source[w] === "number" && source[w] > 0) return [source[w], source[h]];
  throw new Error("the picture has no pixels yet; wait until it is loaded");
}

/**
 * RGBA of a picture, canvas, video, camera frame, or picture file: {data, width, height}. Files turn as their EXIF
 * orientation says, and their colours are taken as they are.
 */
export async function pixelsOf(source) {
  if (source.data && source.width && source.height) return source;
  if (source instanceof Blob) {
    const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" }).catch(() => {
      throw new Error(`${source.name ?? "the picture"}: this browser cannot decode it; give a whole JPEG, PNG or WebP file`);
    });
    try {
      return await pixelsOf(bitmap);
    } finally {
      bitmap.close();
    }
  }
  const [width, height] = sizeOf(source);
  if (!surface || surface.width !== width || surface.height !== height) {
    surface = typeof OffscreenCanvas === "undefined" ? document.createElement("canvas") : new OffscreenCanvas(width, height);
    surface.width = width;
    surface.height = height;
  }
  const context = surface.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
