/** A random name: 7 characters for each 32 bits, of which an id has 128 and a route 64. */
export const randomName = (words: number): string =>
  Array.from(crypto.getRandomValues(new Uint32Array(words)), (word) => word.toString(36).padStart(7, "0")).join("");

export const randomId = (): string => randomName(4);
