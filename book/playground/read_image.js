// Turn any file that a person drops into upright RGBA pixels, or say in a sentence why that can't be done.
//
// As the script of a module worker it answers {id, file, side} with {id, image} or {id, error}; where a browser has no
// OffscreenCanvas, the page imports it and calls readImage itself. A file is judged by its first bytes, not by its
// name, and an SVG is never opened: it is a program, not pixels.

const MAX_BYTES = 100e6;
const MAX_PIXELS = 120e6; // four bytes each while they are scaled down
const HEAD = 262144; // bytes in which the sizes of all kinds of images are found

export class Unreadable extends Error {}

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

// Name the kind of a file by its first bytes: "JPEG", "PNG", …, "text", or "" for what is not known.
export function kindOf(bytes) {
  const brand = text(bytes, 8, 12);
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "JPEG";
  if (text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return "PNG";
  if (/^GIF8[79]a$/.test(text(bytes, 0, 6))) return "GIF";
  if (text(bytes, 0, 4) === "RIFF" && brand === "WEBP") return "WebP";
  if (text(bytes, 4, 8) === "ftyp") {
    if (/^(heic|heix|heim|heis|hevc|hevx|mif1|msf1)$/.test(brand)) {
      return /avif/.test(text(bytes, 8, 40)) ? "AVIF" : "HEIC";
    }
    return /^avi[fs]$/.test(brand) ? "AVIF" : "video";
  }
  if (text(bytes, 0, 4) === "\x1aE\xdf\xa3") return "video";
  if (text(bytes, 0, 2) === "BM" && bytes.length > 26) return "BMP";
  if (/^(II\*\0|MM\0\*)$/.test(text(bytes, 0, 4))) return "TIFF";
  if (text(bytes, 0, 4) === "\0\0\x01\0") return "ICO";
  if (text(bytes, 0, 5) === "%PDF-") return "PDF";
  const start = decode(bytes);
  if (start === null) return "";
  if (/<svg[\s>]/i.test(start)) return "SVG";
  return /^\s*<(!doctype html|html|head|body)[\s>]/i.test(start) ? "HTML" : "text";
}

// Give the first kilobytes as text, or null for what is none.
function decode(bytes) {
  const wide = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  const name = wide ? (bytes[0] === 0xff ? "utf-16le" : "utf-16be") : "utf-8";
  const start = new TextDecoder(name).decode(bytes.subarray(0, 4096)).slice(0, -1);
  const strange = start.match(/[\0-\x08\x0e-\x1f\ufffd]/g);
  return strange && strange.length > start.length / 50 ? null : start;
}

// Find the number of pixels that a file says it has, before they are all decoded; 0 where it can't be told.
export function pixelsOf(kind, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    if (kind === "PNG") return view.getUint32(16) * view.getUint32(20);
    if (kind === "GIF") return view.getUint16(6, true) * view.getUint16(8, true);
    if (kind === "BMP") return Math.abs(view.getInt32(18, true) * view.getInt32(22, true));
    if (kind === "JPEG") return jpegPixels(view);
    if (kind === "WebP") return webpPixels(bytes, view);
    if (kind === "AVIF" || kind === "HEIC") return heifPixels(bytes, view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the file ends before its size is said
  }
  return 0;
}

function jpegPixels(view) {
  let place = 2;
  for (;;) {
    const marker = view.getUint8(place + 1);
    if (view.getUint8(place) !== 0xff) return 0;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return view.getUint16(place + 5) * view.getUint16(place + 7);
    }
    const alone = marker === 0xff || marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    place += marker === 0xff ? 1 : alone ? 2 : 2 + view.getUint16(place + 2);
  }
}

function webpPixels(bytes, view) {
  const chunk = text(bytes, 12, 16);
  if (chunk === "VP8 ") return (view.getUint16(26, true) & 0x3fff) * (view.getUint16(28, true) & 0x3fff);
  if (chunk === "VP8L") {
    const packed = view.getUint32(21, true);
    return ((packed & 0x3fff) + 1) * (((packed >> 14) & 0x3fff) + 1);
  }
  const triple = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16) + 1;
  return triple(24) * triple(27);
}

function heifPixels(bytes, view) {
  let most = 0; // a file may hold a thumbnail, too
  for (let place = 4; place + 16 < bytes.length; place++) {
    if (bytes[place] === 0x69 && text(bytes, place, place + 4) === "ispe") {
      most = Math.max(most, view.getUint32(place + 8) * view.getUint32(place + 12));
    }
  }
  return most;
}

const MEGA = (count) => `${(count / 1e6).toFixed(0)} megapixels`;
const HEIC =
  "This is a HEIC photograph, which this browser cannot read. Save it as JPEG first; an iPhone takes JPEGs with " +
  "Settings › Camera › Formats › Most Compatible.";
const REFUSED = {
  SVG: "This is an SVG, a drawing that can hold programs, so it is not opened. Save it as PNG first.",
  HTML: "This is a web page, not an image. Save the image itself, and choose that file.",
  text: "This is a text file, not an image.",
  PDF: "This is a PDF, not an image. Save a page of it as PNG or JPEG first.",
  video: "This is a video. Choose a single image: JPEG, PNG, WebP, GIF or AVIF.",
  "": "This is no image of a kind that is known here. JPEG, PNG, WebP, GIF, AVIF and BMP can be read.",
};

// Read a Blob into {width, height, data: Uint8ClampedArray RGBA, kind, from: [width, height] before scaling}.
// The image is upright (EXIF), on white where it was transparent, its first frame if it moves, and no side is longer
// than `side` pixels. Throws Unreadable, whose message is for people.
export async function readImage(file, side) {
  if (!(file instanceof Blob)) throw new Unreadable("This is not a file. Choose an image, drop one, or paste one.");
  if (file.size === 0) throw new Unreadable("This file is empty (0 bytes).");
  if (file.size > MAX_BYTES) {
    throw new Unreadable(`This file has ${(file.size / 1e6).toFixed(0)} MB; at most ${MAX_BYTES / 1e6} MB are read.`);
  }
  let bytes;
  try {
    bytes = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  } catch {
    throw new Unreadable("This file could not be read. Is it a folder, or was it moved?");
  }
  const kind = kindOf(bytes);
  if (kind in REFUSED) throw new Unreadable(REFUSED[kind]);
  const pixels = pixelsOf(kind, bytes);
  if (pixels > MAX_PIXELS) {
    throw new Unreadable(`This image has ${MEGA(pixels)}; at most ${MEGA(MAX_PIXELS)} are read. Scale it down first.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    if (kind === "HEIC") throw new Unreadable(HEIC);
    throw new Unreadable(`This ${kind} file is damaged, or of a form that this browser cannot read.`);
  }
  try {
    return { ...toPixels(bitmap, side), kind, from: [bitmap.width, bitmap.height] };
  } finally {
    bitmap.close();
  }
}

function toPixels(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const canvas = newCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  canvas.width = canvas.height = 0; // gives its memory back now
  return { width, height, data };
}

function newCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}

if (typeof document === "undefined") {
  self.addEventListener("message", async ({ data: { id, file, side } }) => {
    try {
      const image = await readImage(file, side);
      self.postMessage({ id, image }, [image.data.buffer]);
    } catch (error) {
      const known = error instanceof Unreadable;
      self.postMessage({ id, error: known ? error.message : `This image could not be read (${error.message}).` });
    }
  });
}
