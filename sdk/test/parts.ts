// The parts that are tested by themselves, in one file for Node.
export * from "../src/extras.js";
export * from "../src/identity.js";
export * from "../src/limits.js";
export * from "../src/queue.js";
export * from "../src/random.js";
export * from "../src/sender.js";
