// What the shop sells. The art is drawn on 120 × 120, in the colours of the page: `a` the main one, `b` its shade, `c` an accent.

export const CATEGORIES = { kitchen: "Kitchen", desk: "Desk", garden: "Garden", travel: "Travel" };

export const GOODS = [
  {
    id: "stoneware-mug", name: "Stoneware mug", category: "kitchen", price: 14,
    text: "Thrown by hand, glazed twice, and heavy enough to stay where you put it. Holds 330 ml.",
    art: `<path class="b" d="M78 50h10c12 0 12 28 0 28H78v-8h7c4 0 4-12 0-12h-7z"/><path class="a" d="M32 40h48v42c0 8-6 12-12 12H44c-6 0-12-4-12-12z"/><path class="c" d="M32 40h48v10c-8 6-14-2-24 3s-16 0-24 2z"/>`,
  },
  {
    id: "coffee-pot", name: "Coffee pot", category: "kitchen", price: 32,
    text: "Three cups in four minutes, on any stove. Every part of it can be had by itself, should one ever wear out.",
    art: `<path class="b" d="M80 38h10l6 34H86z"/><path class="a" d="M40 30h38l4 30H36z"/><path class="b" d="M36 60h46v6H36z"/><path class="a" d="M38 66h42l6 30H32z"/><path class="a" d="m40 30-12 8 10 8z"/><circle class="c" cx="59" cy="24" r="5"/>`,
  },
  {
    id: "walnut-board", name: "Walnut board", category: "kitchen", price: 38,
    text: "One plank, oiled, with a groove for what runs off and a hole to hang it by.",
    art: `<rect class="a" x="26" y="34" width="60" height="56" rx="10"/><rect class="a" x="82" y="54" width="22" height="16" rx="8"/><circle class="e" cx="95" cy="62" r="3.5"/><path class="f" d="M36 48c14-6 26 6 40 0M36 62c14-6 26 6 40 0M36 76c14-6 26 6 40 0"/>`,
  },
  {
    id: "ruled-notebook", name: "Ruled notebook", category: "desk", price: 9,
    text: "128 pages that lie flat, take ink without feathering, and are numbered so that you needn't.",
    art: `<rect class="b" x="38" y="26" width="52" height="70" rx="4"/><rect class="a" x="32" y="24" width="52" height="70" rx="4"/><path class="c" d="M70 24h6v82l-3-5-3 5z"/><path class="f" d="M42 42h20M42 50h20"/>`,
  },
  {
    id: "brass-pen", name: "Brass pen", category: "desk", price: 24,
    text: "Turned from one rod. It darkens where you hold it, and takes any common refill.",
    art: `<g transform="rotate(40 60 60)"><rect class="a" x="54" y="22" width="12" height="62" rx="4"/><path class="b" d="M54 84h12l-6 16z"/><path class="c" d="M66 26h5v26h-5z"/><path class="b" d="M54 58h12v4H54z"/></g>`,
  },
  {
    id: "clamp-lamp", name: "Clamp lamp", category: "desk", price: 59,
    text: "Light where you look, not where you sit. Warm, without flicker, 6 watts.",
    art: `<path class="d" d="m52 92 8-34-18-24"/><rect class="b" x="36" y="90" width="34" height="8" rx="3"/><path class="a" d="m34 40 26-20 22 22c-14 2-34 10-40 22z"/><path class="c" d="M82 42c-14 2-34 10-40 22 12 4 36-8 40-22z"/>`,
  },
  {
    id: "watering-can", name: "Watering can", category: "garden", price: 29,
    text: "Four litres of galvanised steel, balanced so that the last of it pours as easily as the first.",
    art: `<path class="d" d="M44 52c0-26 34-26 36 0"/><path class="a" d="M42 50h42l4 44H38z"/><path class="b" d="M40 74 22 48l-6 2 4 10 20 28z"/><path class="c" d="m12 52 14-8-2-5-15 8z"/>`,
  },
  {
    id: "terracotta-pot", name: "Terracotta pot", category: "garden", price: 12,
    text: "Fired hot, so frost leaves it alone. 14 cm, with a saucer.",
    art: `<path class="g" d="M58 58c-4-18-20-20-26-20 2 12 12 20 26 20zm4 0c2-22 18-30 28-32 0 18-10 32-28 32z"/><rect class="c" x="34" y="56" width="52" height="12" rx="2"/><path class="b" d="M38 68h44l-6 30H44z"/>`,
  },
  {
    id: "hand-trowel", name: "Hand trowel", category: "garden", price: 17,
    text: "Forged in one piece, with a handle of ash. It will not bend; your wrist won't, either.",
    art: `<g transform="rotate(-40 60 60)"><rect class="c" x="54" y="14" width="12" height="32" rx="6"/><path class="b" d="M57 46h6v12h-6z"/><path class="a" d="M46 58h28c2 22-4 38-14 48-10-10-16-26-14-48z"/></g>`,
  },
  {
    id: "canvas-tote", name: "Canvas tote", category: "travel", price: 22,
    text: "Carries a week's bread or a weekend's books. The seams are sewn twice, and then once more.",
    art: `<path class="d" d="M46 50V36c0-16 28-16 28 0v14"/><path class="a" d="M30 48h60l4 50H26z"/><path class="b" d="M28 72h64l2 26H26z"/><circle class="c" cx="60" cy="84" r="6"/>`,
  },
  {
    id: "steel-flask", name: "Steel flask", category: "travel", price: 27,
    text: "Hot for twelve hours, cold for a day, dry on the outside always. Half a litre.",
    art: `<rect class="c" x="48" y="16" width="24" height="18" rx="4"/><path class="a" d="M46 38h28c6 4 8 8 8 16v40c0 4-3 6-6 6H44c-3 0-6-2-6-6V54c0-8 2-12 8-16z"/><path class="b" d="M38 62h44v14H38z"/>`,
  },
  {
    id: "wool-blanket", name: "Wool blanket", category: "travel", price: 64,
    text: "For the back seat, the beach after sunset, or the sofa on the way home. 130 × 180 cm.",
    art: `<rect class="a" x="24" y="40" width="72" height="46" rx="8"/><path class="b" d="M24 56h72v8H24z"/><path class="c" d="M24 68h72v4H24z"/><path class="f" d="M30 86v10m10-10v10m10-10v10m10-10v10m10-10v10m10-10v10m10-10v10"/>`,
  },
];

export const goodOf = (id) => GOODS.find((good) => good.id === id);
