/** The escapers of templates: html, js and urlquery. */
import { escapedByte, toBytes } from "./bytes.ts";
import { isPrintable } from "./quote.ts";

const html: Readonly<Record<string, string>> = {
  "\0": "\uFFFD",
  '"': "&#34;",
  "'": "&#39;",
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
};
const quoted: Readonly<Record<string, string>> = { "\\": "\\\\", "'": "\\'", '"': '\\"' };

export function escapeHtml(text: string): string {
  return text.replace(/[\0"'&<>]/g, (character) => html[character] ?? character);
}

/** For inside of a JavaScript string. */
export function escapeScript(text: string): string {
  let result = "";
  for (const character of text) result += escapeCharacter(character);
  return result;
}

function escapeCharacter(character: string): string {
  const known = quoted[character];
  if (known !== undefined) return known;
  if (escapedByte(character) !== undefined) return "\uFFFD";
  const isSpecial = character < " " || "<>&=".includes(character);
  if (!isSpecial && (character <= "\x7f" || isPrintable(character))) return character;
  return `\\u${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** For a URL's query. */
export function escapeQuery(text: string): string {
  let result = "";
  for (const byte of toBytes(text)) {
    const character = String.fromCharCode(byte);
    if (/[A-Za-z0-9_.~-]/.test(character)) result += character;
    else result += character === " " ? "+" : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return result;
}
