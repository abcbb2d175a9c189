// What a page calls a target: a class index, a rank (-1 is the class with the highest score), or a class name.

const WORDNET = /^n\d{8}\s+/;

/** The first name in a label: "n02123045 tabby, tabby cat" -> "tabby". */
export const shortLabel = (label) => label.trim().replace(WORDNET, "").split(",")[0].trim();

const key = (text) => text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");

/** The number that goes into fastcam.targets. */
export function targetNumber(target, classes, labels) {
  let number = target;
  if (typeof target === "string") number = byName(target, labels);
  if (!Number.isInteger(number)) throw new Error(`a target is a class index, a rank or a name, not ${target}`);
  if (classes !== null && (number < -classes || number >= classes)) {
    throw new Error(`class ${number} is out of range: the model has ${classes} classes, 0 to ${classes - 1}, or -1 to -${classes} by rank`);
  }
  return number;
}

function byName(name, labels) {
  const wanted = key(name);
  const tests = [(label) => key(label) === wanted, (label) => key(label.trim().replace(WORDNET, "")) === wanted,
    (label) => label.trim().replace(WORDNET, "").split(",").some((part) => key(part) === wanted)];
  for (const test of labels ? tests : []) {
    const found = labels.flatMap((label, index) => (test(label) ? [index] : []));
    if (found.length === 1) return found[0];
    if (found.length > 1) throw new Error(`class "${name}" is ambiguous: ${found.slice(0, 5).join(", ")}; give the index`);
  }
  if (/^\s*[+-]?\d+\s*$/.test(name)) return Number(name);
  if (!labels) throw new Error(`class "${name}" cannot be looked up: the file has no class names; give an index`);
  throw new Error(`no class "${name}"; the model knows ${labels.slice(0, 4).map(shortLabel).join(", ")}, ...`);
}
