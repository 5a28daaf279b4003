// The browser's camera: one picture at a time to the kernel, which answers with faces.
function element(tag, parent, style = "") {
  const made = document.createElement(tag);
  made.style.cssText = style;
  parent.append(made);
  return made;
}

function render({ model, el }) {
  const button = element("button", el);
  const told = element("span", el, "margin-left: 1em");
  const canvas = element("canvas", el, "display: block; margin-top: 0.5em; max-width: 100%");
  const video = document.createElement("video");
  const still = document.createElement("canvas");
  let stream = null;
  let faces = [];
  let colours = {};
  button.className = "ferlib-camera";
  button.textContent = "Start the camera";
  canvas.hidden = true;
  video.muted = true;
  video.playsInline = true;

  function stop(why = "") {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    button.textContent = "Start the camera";
    told.textContent = why;
  }

  function ask() {
    if (!stream) return;
    still.width = video.videoWidth;
    still.height = video.videoHeight;
    still.getContext("2d").drawImage(video, 0, 0);
    still.toBlob(
      async (blob) => model.send({ kind: "picture" }, undefined, [await blob.arrayBuffer()]),
      "image/jpeg",
      0.85,
    );
  }

  function draw() {
    if (!stream) return;
    const pen = canvas.getContext("2d");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    pen.drawImage(video, 0, 0);
    pen.font = "16px sans-serif";
    pen.lineWidth = 3;
    for (const { person, box, shares } of faces) {
      const [emotion, share] = Object.entries(shares).sort((a, b) => b[1] - a[1])[0];
      const [left, top, width, height] = box;
      const text = `${person} ${emotion} ${Math.round(100 * share)}%`;
      pen.strokeStyle = pen.fillStyle = colours[emotion];
      pen.strokeRect(left, top, width, height);
      pen.fillRect(left, Math.max(0, top - 22), pen.measureText(text).width + 8, 22);
      pen.fillStyle = "white";
      pen.fillText(text, left + 4, Math.max(16, top - 6));
    }
    requestAnimationFrame(draw);
  }

  function hear(message) {
    if (message.problem) return stop(message.problem);
    faces = message.faces;
    colours = message.colours;
    const names = faces.map(({ person, shares }) => {
      const emotion = Object.keys(shares).sort((a, b) => shares[b] - shares[a])[0];
      return `${person}: ${emotion}`;
    });
    told.textContent = names.join(", ") || "no face";
    ask();
  }

  button.onclick = async () => {
    if (stream) return stop();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
      video.srcObject = stream;
      await video.play();
      button.textContent = "Stop the camera";
      told.textContent = "looking …";
      canvas.hidden = false;
      ask();
      draw();
    } catch (error) {
      stop(`No camera: ${error.message}`);
    }
  };
  model.on("msg:custom", hear);
  return () => {
    model.off("msg:custom", hear);
    stop();
  };
}

export default { render };
