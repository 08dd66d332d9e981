// Run in a page: what of it cannot be read, told to the page around it.
const found = [];
const tell = (what, ...texts) => found.push(what + ': ' + texts.map(t => '"' + t.trim().slice(0, 60) + '"').join(' and '));
document.querySelectorAll('details').forEach(one => { one.open = true; });
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) tell('wider than the page', document.documentElement.scrollWidth + ' px');

// every line of every text, and every plot, as a box
const boxes = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walk.nextNode());) {
  const element = node.parentElement;
  if (!node.data.trim() || element.closest('style, script, svg title, desc, defs') || !element.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (box.width < 1) continue;
    boxes.push({box, text: node.data, element});
    if (!element.closest('.scroll') && (box.left < -0.5 || box.right > width + 0.5)) tell('outside of the page', node.data);
    for (let clip = element; clip && clip !== document.body; clip = clip.parentElement) {
      const style = getComputedStyle(clip), edge = clip.getBoundingClientRect();
      const hidden = style.overflowX !== 'visible' && !clip.matches('.scroll');
      if (hidden && (box.left < edge.left - 1 || box.right > edge.right + 1)) tell('clipped', node.data);
      const cut = /url\("?#([^")]+)/.exec(style.clipPath);
      if (cut) {
        const within = document.getElementById(cut[1]).firstElementChild, origin = clip.getCTM ? clip.getScreenCTM() : null;
        const left = origin.a * within.x.baseVal.value + origin.e, right = left + origin.a * within.width.baseVal.value;
        if (box.left < left - 1 || box.right > right + 1) tell('clipped', node.data);
      }
    }
  }
}
for (const plot of document.querySelectorAll('svg.plot')) {
  const edge = plot.getBoundingClientRect();
  boxes.push({box: edge, text: 'a plot', element: plot});
  if (edge.right > width + 0.5 || edge.width < 100) tell('a plot without room', edge.width + ' px');
  for (const mark of plot.querySelectorAll('rect, line, path')) {
    const box = mark.getBoundingClientRect();
    if (box.left < edge.left - 9 || box.right > edge.right + 9 || box.top < edge.top - 9 || box.bottom > edge.bottom + 9)
      tell('a mark outside of its plot', mark.outerHTML);
  }
}
boxes.sort((a, b) => a.box.top - b.box.top);
boxes.forEach((one, at) => {
  const a = one.box, low = a.bottom - Math.min(0.25 * a.height, 5);
  for (let next = at + 1; next < boxes.length && boxes[next].box.top < low; next++) {
    const b = boxes[next].box;
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5) tell('overlap', one.text, boxes[next].text);
  }
});

// text against the paper behind it, as WCAG 2 counts contrast
const parts = colour => (colour.match(/[\d.]+/g) || []).map(Number);
const light = colour => {
  const [r, g, b] = parts(colour).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
for (const {element, text} of boxes) {
  if (element.closest('svg')) continue;
  let behind = element;
  while (behind && (parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const paper = behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)';
  const [low, high] = [light(getComputedStyle(element).color), light(paper)].sort((a, b) => a - b);
  if ((high + 0.05) / (low + 0.05) < 4.5) tell('faint', text, getComputedStyle(element).color, paper);
}
parent.postMessage({width: innerWidth, found: [...new Set(found)], boxes: boxes.length}, '*');
