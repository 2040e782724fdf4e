// Takes the colour profile out of an image file: Safari's createImageBitmap applies it, whatever it is asked for.
const PROFILE = ["ICC_PROFILE\0", "iCCP", "cICP", "sRGB", "gAMA", "cHRM"];  // the first in a JPEG, the others in a PNG

/** Give a file, an ArrayBuffer, as parts for a Blob that hold no profile. Other bytes stay, a damaged file's too. */
export function withoutProfile(file) {
  const bytes = new Uint8Array(file), view = new DataView(file), kept = [];
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") return [hidden(bytes, view)];
  let from = 0;
  for (const {name, start, end} of blocks(bytes, view)) {
    if (end > bytes.length || !PROFILE.includes(name)) continue;
    kept.push(bytes.subarray(from, start));
    from = end;
  }
  return [...kept, bytes.subarray(from)];
}

const text = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length));

/** What a file is made of: each block's name, and where it starts and ends, which is beyond `start` in any file. */
function blocks(bytes, view) {
  if (text(bytes, 0, 2) === "\xff\xd8") return segments(bytes, view);
  return text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n" ? chunks(bytes, view) : [];
}

/** A JPEG's segments before its pixels: 0xff, a marker, the length of what follows, and that; profiles are in APP2. */
function* segments(bytes, view) {
  const more = (start) => start + 4 <= bytes.length && bytes[start] === 0xff && bytes[start + 1] !== 0xda;
  for (let start = 2, end; more(start); start = end) {
    end = start + 2 + view.getUint16(start + 2);
    yield {name: bytes[start + 1] === 0xe2 ? text(bytes, start + 4, 12) : "", start, end};
  }
}

/** A PNG's chunks: the length of what each holds, its name, that, and a checksum. */
function* chunks(bytes, view) {
  for (let start = 8, end; start + 12 <= bytes.length; start = end) {
    end = start + 12 + view.getUint32(start);
    yield {name: text(bytes, start + 4, 4), start, end};
  }
}

/** A WebP with its length kept, as its header tells that: its profile gets a name that decoders skip. */
function hidden(bytes, view) {
  for (let start = 12, size; start + 8 <= bytes.length; start += 8 + size + size % 2) {
    size = view.getUint32(start + 4, true);
    if (text(bytes, start, 4) === "VP8X" && start + 8 < bytes.length) bytes[start + 8] &= ~0x20;
    if (text(bytes, start, 4) === "ICCP") bytes.fill(0x78, start, start + 4);
  }
  return bytes;
}
