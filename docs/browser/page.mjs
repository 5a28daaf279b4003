// The page: a picture or the camera, a square on the face in it, and the answer as bars.

import * as ort from "./ort.wasm.min.mjs";
import { SIDE, crop } from "./face.mjs";

const EVERY = 200; // milliseconds between two answers to the camera
const find = (id) => document.getElementById(id);
const canvas = find("picture");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const video = document.createElement("video");

let models, model, session, picture, square, stream;

function say(text) {
  find("status").textContent = text;
}

async function load(name) {
  say(`Loading ${name} ...`);
  model = models[name];
  session = await ort.InferenceSession.create(model.file, { executionProviders: ["wasm"] });
  find("bars").replaceChildren(
    ...model.classes.map((label) => {
      const row = document.createElement("li");
      row.innerHTML = "<span></span><meter min='0' max='1'></meter><output></output>";
      row.firstChild.textContent = label;
      row.style.setProperty("--colour", model.colours[label]);
      return row;
    }),
  );
  find("about").textContent = model.about;
}

async function answer() {
  const pixels = crop(picture, square.left, square.top, square.side);
  const tensor = new ort.Tensor("uint8", pixels, [1, SIDE, SIDE, 1]);
  const answers = await session.run({ [session.inputNames[0]]: tensor });
  const probabilities = answers[session.outputNames[0]].data;
  const best = probabilities.indexOf(Math.max(...probabilities));
  [...find("bars").children].forEach((row, n) => {
    row.dataset.probability = probabilities[n];
    row.children[1].value = probabilities[n];
    row.children[2].textContent = `${(100 * probabilities[n]).toFixed(1)} %`;
    row.classList.toggle("best", n === best);
  });
  say(`${model.classes[best]}, ${(100 * probabilities[best]).toFixed(0)} %`);
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
}

function draw(source) {
  if (source) {
    pen.fillStyle = "white"; // what is transparent
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(source, 0, 0);
    picture = pen.getImageData(0, 0, canvas.width, canvas.height);
  } else {
    pen.putImageData(picture, 0, 0);
  }
  pen.lineWidth = Math.max(2, canvas.width / 200);
  pen.strokeStyle = "#e8a317";
  pen.strokeRect(square.left, square.top, square.side, square.side);
}

// Makes room for a picture; the square is the largest in its middle, as `--detect no` takes it.
function begin(width, height) {
  [canvas.width, canvas.height] = [width, height];
  const side = Math.min(width, height);
  square = { left: (width - side) / 2, top: (height - side) / 2, side };
}

async function show(file) {
  stop();
  try {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    begin(bitmap.width, bitmap.height);
    draw(bitmap);
  } catch (error) {
    return say(`${file.name} is no picture that this browser can read (${error.message}).`);
  }
  await answer();
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  find("camera").textContent = "Use the camera";
}

async function camera() {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    return say(`No camera: ${error.message}`);
  }
  find("camera").textContent = "Stop the camera";
  video.srcObject = stream;
  await video.play();
  begin(video.videoWidth, video.videoHeight);
  while (stream) {
    draw(video);
    await answer();
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  return [
    Math.round(((event.clientX - box.left) / box.width) * canvas.width),
    Math.round(((event.clientY - box.top) / box.height) * canvas.height),
  ];
}

// A square is drawn from one corner to the other.
let corner;
canvas.addEventListener("pointerdown", (event) => {
  if (picture) corner = point(event);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!corner) return;
  const [x, y] = point(event);
  const room = [
    x < corner[0] ? corner[0] : canvas.width - corner[0],
    y < corner[1] ? corner[1] : canvas.height - corner[1],
  ];
  const wanted = Math.max(Math.abs(x - corner[0]), Math.abs(y - corner[1]));
  const side = Math.min(wanted, ...room);
  if (side < 12) return;
  const left = x < corner[0] ? corner[0] - side : corner[0];
  square = { left, top: y < corner[1] ? corner[1] - side : corner[1], side };
  draw(stream ? video : undefined);
});
canvas.addEventListener("pointerup", () => {
  corner = undefined;
  if (picture && !stream) answer();
});

find("file").addEventListener("change", (event) => event.target.files[0] && show(event.target.files[0]));
find("camera").addEventListener("click", camera);
find("model").addEventListener("change", async (event) => {
  await load(event.target.value);
  if (picture) await answer();
  else say("Choose a picture.");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
});

ort.env.wasm.numThreads = 1; // more need headers that a static page does not have
models = await (await fetch("models.json")).json();
for (const name of Object.keys(models)) find("model").add(new Option(name));
await load(find("model").value);
find("file").disabled = find("camera").disabled = false;
say("Choose a picture, or drop one here.");
