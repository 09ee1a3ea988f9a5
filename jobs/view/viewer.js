// The scene's page: the cloud and its cameras by three.js, the list of views, what joins the two.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const FLIGHT_MS = 650, FOV = 50, CLICK_PX = 5, NEAR_PX = 40, STEEPEST = 1.54, TURN_A_SECOND = 0.25;
  const FULL = 1.7; // size of a point in cells: neighbours overlap, so that surfaces close

  // -- views: the list, the slider, the pictures ---------------------------------------------------------

  const buttons = [...document.querySelectorAll("#views button")];
  let order = buttons.map((_, i) => i), chosen = 0, best = -1, ranking = null;

  function rank(which) {
    ranking = data.rankings[which] || null;
    if (ranking) {
      order = ranking.values.map((_, i) => i).sort((a, b) => ranking.values[b] - ranking.values[a] || a - b);
      best = order[0];
      const high = Math.max(...ranking.values), low = Math.min(0, ...ranking.values);
      for (const [i, button] of buttons.entries()) {
        button.classList.toggle("best", i === best);
        button.querySelector(".value").textContent = `${i === ranking.right ? "✓ " : ""}${ranking.values[i].toFixed(3)}`;
        button.querySelector(".bar i").style.width =
          `${100 * Math.max(0, (ranking.values[i] - low) / Math.max(high - low, 1e-9))}%`;
      }
      for (const i of order) byId("views").append(buttons[i].parentElement);
    }
    choose(order[0]);
  }

  function choose(view) {
    chosen = view;
    const button = buttons[view], image = button.querySelector("img"), place = order.indexOf(view);
    for (const [i, each] of buttons.entries()) each.setAttribute("aria-current", i === view);
    byId("picture").src = image.src;
    byId("picture").alt = image.alt;
    byId("depth-figure").hidden = !image.dataset.depth;
    if (image.dataset.depth) byId("depth").src = image.dataset.depth;
    byId("depth").alt = `depth of ${data.names[view]}`;
    byId("at").value = place;
    byId("at").setAttribute("aria-valuetext", `${data.names[view]}, ${place + 1} of ${order.length}`);
    byId("said").textContent = ranking
      ? `number ${place + 1} of ${order.length}: ${data.names[view]}, ${data.rankedBy} ${ranking.values[view].toFixed(3)}`
      : data.names[view];
    byId("captions").replaceChildren(...data.captions[view].map((caption) => {
      const item = document.createElement("li");
      item.textContent = caption;
      return item;
    }));
    drawn.show();
  }

  const step = (by) => choose(order[Math.min(Math.max(order.indexOf(chosen) + by, 0), order.length - 1)]);
  for (const [i, button] of buttons.entries()) button.addEventListener("click", () => choose(i));
  byId("at").addEventListener("input", (event) => choose(order[+event.target.value]));
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  for (const radio of document.querySelectorAll("#texts input"))
    radio.addEventListener("change", () => rank(+radio.value));

  // -- the scene in 3D -----------------------------------------------------------------------------------

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  const VERTEX = `
    attribute vec3 rgb, out3; attribute float seen;
    uniform float size, scale, cut, amount, walls, shade; uniform vec3 mark;
    varying vec3 colour; varying float hidden;
    void main() {
      vec4 at = modelViewMatrix * vec4(position, 1.0);
      float facing = dot(out3, normalize(cameraPosition - position)), known = dot(out3, out3);
      hidden = max(step(cut, position.z), walls * step(facing, -0.05) * step(0.5, known));
      float light = 1.0 - shade * known * (0.45 - 0.45 * abs(dot(out3, normalize(vec3(0.35, 0.2, 0.9)))));
      colour = mix(rgb * light, mark, seen * amount);
      gl_Position = projectionMatrix * at;
      gl_PointSize = clamp(size * scale / -at.z, 1.5, 64.0);
    }`;
  const FRAGMENT = `
    varying vec3 colour; varying float hidden;
    void main() {
      vec2 from = gl_PointCoord - 0.5;
      if (hidden > 0.5 || dot(from, from) > 0.25) discard;
      gl_FragColor = vec4(colour, 1.0);
    }`;

  function start(canvas) {
    const renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(FOV, 1, 0.02, 500);
    camera.up.set(0, 0, 1);
    const low = new THREE.Vector3(...data.low), high = new THREE.Vector3(...data.high);
    const middle = low.clone().add(high).multiplyScalar(0.5), radius = Math.max(low.distanceTo(high) / 2, 0.2);

    // The cloud
    const count = data.points, steps = new Uint16Array(bytes(data.xyz).buffer), xyz = new Float32Array(3 * count);
    for (let i = 0; i < 3 * count; i++) xyz[i] = data.origin[i % 3] + data.step * steps[i];
    const own = bytes(data.rgb), seen = bytes(data.seen), row = seen.length / count;
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(xyz, 3));
    geometry.setAttribute("rgb", new THREE.BufferAttribute(own.slice(), 3, true));
    geometry.setAttribute("out3", new THREE.BufferAttribute(new Int8Array(bytes(data.normals).buffer), 3, true));
    geometry.setAttribute("seen", new THREE.BufferAttribute(new Uint8Array(count), 1, true));
    const spacing = data.spacing || (1.5 * radius) / Math.sqrt(count);
    const uniforms = {
      size: { value: FULL * spacing }, scale: { value: 1 }, cut: { value: 1e9 }, amount: { value: 0 },
      mark: { value: new THREE.Color() }, walls: { value: 1 }, shade: { value: data.coloured ? 0 : 1 },
    };
    const material = new THREE.ShaderMaterial({ vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms });
    const cloud = new THREE.Points(geometry, material);
    cloud.frustumCulled = false;
    scene.add(cloud);

    // A grid of 1 m on the floor
    const side = Math.ceil(Math.max(high.x - low.x, high.y - low.y)) + 2;
    const grid = new THREE.GridHelper(side, side);
    grid.rotation.x = Math.PI / 2;
    grid.position.set(middle.x, middle.y, low.z - 0.02);
    grid.material.vertexColors = false;
    grid.material.transparent = true;
    scene.add(grid);

    // The cameras: edges as thin rods, which show on every screen, and the picture where it was taken
    const rods = data.pyramids.map((corners) => corners && pyramid(corners));
    const screen = new THREE.Mesh(new THREE.BufferGeometry(), new THREE.MeshBasicMaterial({ side: THREE.DoubleSide }));
    screen.geometry.setAttribute("uv", new THREE.Float32BufferAttribute([0, 1, 1, 1, 1, 0, 0, 0], 2));
    screen.geometry.setIndex([0, 1, 2, 0, 2, 3]);
    screen.frustumCulled = false;
    scene.add(screen);

    function pyramid(corners) {
      const points = corners.map((each) => new THREE.Vector3(...each)), group = new THREE.Group();
      const thick = 0.022 * points[0].distanceTo(points[1]);
      group.material = new THREE.MeshBasicMaterial();
      for (const [a, b] of [[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]]) {
        const along = points[b].clone().sub(points[a]);
        const rod = new THREE.Mesh(new THREE.CylinderGeometry(thick, thick, along.length(), 6), group.material);
        rod.position.copy(points[a]).addScaledVector(along, 0.5);
        rod.quaternion.setFromUnitVectors(new THREE.Vector3(0, 1, 0), along.normalize());
        group.add(rod);
      }
      scene.add(group);
      return group;
    }

    // What is marked, in which colours
    const textures = new Map();
    let inside = -1; // the view whose camera one looks through
    function show() {
      const css = getComputedStyle(document.documentElement), colour = (name) => css.getPropertyValue(name).trim();
      renderer.setClearColor(colour("--stage"));
      grid.material.color.set(colour("--muted"));
      grid.material.opacity = dark.matches ? 0.22 : 0.3;
      const mark = chosen === best ? colour("--best") : colour("--chosen");
      uniforms.mark.value.set(mark);
      const marks = byId("tint").getAttribute("aria-pressed") === "true" && inside < 0;
      uniforms.amount.value = marks ? (chosen === best ? 0.55 : 0.35) : 0;
      uniforms.walls.value = byId("walls").getAttribute("aria-pressed") === "true" && inside < 0 ? 1 : 0;
      const flags = geometry.attributes.seen.array, byte = chosen >> 3, bit = 1 << (chosen & 7);
      for (let i = 0; i < count; i++) flags[i] = seen[i * row + byte] & bit ? 255 : 0;
      geometry.attributes.seen.needsUpdate = true;
      const shown = byId("cameras").getAttribute("aria-pressed") === "true";
      for (const [i, rod] of rods.entries()) {
        if (!rod) continue;
        rod.visible = shown && inside < 0;
        rod.material.color.set(i === best ? colour("--best") : i === chosen ? colour("--chosen") : colour("--muted"));
      }
      const corners = data.pyramids[chosen];
      screen.visible = Boolean(corners) && shown && inside < 0;
      if (corners) {
        screen.geometry.setAttribute("position", new THREE.Float32BufferAttribute(corners.slice(1).flat(), 3));
        if (!textures.has(chosen))
          textures.set(chosen, new THREE.TextureLoader().load(buttons[chosen].querySelector("img").src, draw));
        screen.material.map = textures.get(chosen);
        screen.material.needsUpdate = true;
      }
      draw();
    }

    function paint(byHeight) {
      const out = geometry.attributes.rgb.array, stops = data.ramp.length - 1;
      uniforms.shade.value = byHeight || !data.coloured ? 1 : 0;
      if (!byHeight) out.set(own);
      for (let i = 0; byHeight && i < count; i++) {
        const share = (xyz[3 * i + 2] - low.z) / Math.max(high.z - low.z, 1e-9);
        out.set(data.ramp[Math.round(Math.min(Math.max(share, 0), 1) * stops)], 3 * i);
      }
      geometry.attributes.rgb.needsUpdate = true;
      draw();
    }

    // Where one looks from: around a target, z up
    const ahead = new THREE.Vector3();
    for (const corners of data.pyramids) if (corners) ahead.add(direction(corners));
    // From behind the cameras, where what they saw faces; from a corner if they look all around.
    const flat = Math.hypot(ahead.x, ahead.y) > 0.3 * data.pyramids.length;
    const round = flat ? Math.atan2(-ahead.y, -ahead.x) + 0.35 : -0.9;
    const home = () => ({ target: middle.clone(), distance: fit(), azimuth: round, elevation: 0.72, fov: FOV });
    const fit = () => (0.9 * radius) / Math.sin((Math.PI / 360) * FOV) / Math.min(1, 1.15 * camera.aspect || 1);
    let eye = null, flight = null, pending = false, turning = false, last = 0;

    function direction(corners) {
      const at = new THREE.Vector3();
      for (const corner of corners.slice(1)) at.add(new THREE.Vector3(...corner));
      return at.multiplyScalar(0.25).sub(new THREE.Vector3(...corners[0])).normalize();
    }

    function fly(to) {
      const turn = 2 * Math.PI;
      to.azimuth = eye.azimuth + ((((to.azimuth - eye.azimuth + Math.PI) % turn) + turn) % turn) - Math.PI;
      if (still.matches) eye = to;
      else flight = { from: { ...eye, target: eye.target.clone() }, to, start: performance.now() };
      draw();
    }

    function advance(now) {
      if (flight) {
        const t = Math.min((now - flight.start) / FLIGHT_MS, 1), s = t * t * (3 - 2 * t), { from, to } = flight;
        for (const key of ["distance", "azimuth", "elevation", "fov"]) eye[key] = from[key] + s * (to[key] - from[key]);
        eye.target.lerpVectors(from.target, to.target, s);
        if (t >= 1) flight = null;
      }
      if (turning) eye.azimuth += TURN_A_SECOND * Math.min(now - last, 100) / 1000;
      last = now;
    }

    let told = parent === window; // a page that holds this one shows a still picture until then
    function draw() {
      if (pending || !eye) return; // the page has no size yet
      pending = true;
      requestAnimationFrame((now) => {
        pending = false;
        advance(now);
        const cos = Math.cos(eye.elevation);
        camera.position.set(cos * Math.cos(eye.azimuth), cos * Math.sin(eye.azimuth), Math.sin(eye.elevation))
          .multiplyScalar(eye.distance).add(eye.target);
        camera.lookAt(eye.target);
        camera.fov = eye.fov;
        camera.updateProjectionMatrix();
        uniforms.scale.value = renderer.domElement.height / (2 * Math.tan((Math.PI / 360) * eye.fov));
        renderer.render(scene, camera);
        if (!told) requestAnimationFrame(() => parent.postMessage("drawn", "*"));
        told = true;
        if (flight || turning) draw();
      });
    }

    function leave() {
      flight = null;
      if (inside < 0) return;
      inside = -1;
      eye.fov = FOV;
      show();
    }
    function orbit(x, y) {
      leave();
      eye.azimuth -= x;
      eye.elevation = Math.min(Math.max(eye.elevation + y, -STEEPEST), STEEPEST);
      draw();
    }
    function zoom(factor) {
      leave();
      eye.distance = Math.min(Math.max(eye.distance * factor, 0.05 * radius), 12 * radius);
      draw();
    }
    function move(x, y) { // shares of the canvas' height
      leave();
      const reach = 2 * eye.distance * Math.tan((Math.PI / 360) * eye.fov);
      const right = new THREE.Vector3().setFromMatrixColumn(camera.matrix, 0);
      const up = new THREE.Vector3().setFromMatrixColumn(camera.matrix, 1);
      eye.target.addScaledVector(right, -x * reach).addScaledVector(up, y * reach);
      draw();
    }
    function through() {
      const corners = data.pyramids[chosen];
      if (!corners) return;
      const at = new THREE.Vector3(...corners[0]), towards = direction(corners), away = Math.max(0.5 * radius, 0.5);
      const across = (a, b) => new THREE.Vector3(...corners[a]).sub(new THREE.Vector3(...corners[b])).length() / 2;
      const deep = at.distanceTo(at.clone().add(new THREE.Vector3(...corners[1]).sub(at).projectOnVector(towards)));
      const tall = Math.max(across(1, 4), across(1, 2) / camera.aspect) / deep;
      inside = chosen;
      press("turn", false);
      turning = false;
      show();
      fly({
        target: at.clone().addScaledVector(towards, away), distance: away, fov: (360 / Math.PI) * Math.atan(tall),
        azimuth: Math.atan2(-towards.y, -towards.x), elevation: Math.asin(Math.min(Math.max(-towards.z, -1), 1)),
      });
    }
    function go(to) {
      inside = -1;
      show();
      fly(to);
    }

    function pick(x, y) { // the camera nearest to a click
      const { width, height } = canvas.getBoundingClientRect();
      let found = -1, nearest = NEAR_PX;
      for (const [i, corners] of data.pyramids.entries()) {
        if (!corners || !rods[i].visible) continue;
        for (const point of [corners[0], [0, 1, 2].map((k) => (corners[1][k] + corners[3][k]) / 2)]) {
          const at = new THREE.Vector3(...point).project(camera);
          const far = Math.hypot(((at.x + 1) / 2) * width - x, ((1 - at.y) / 2) * height - y);
          if (at.z < 1 && far < nearest) [found, nearest] = [i, far];
        }
      }
      if (found >= 0) choose(found);
    }

    // Mouse and touch
    const fingers = new Map();
    let travelled = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (fingers.size === 1) travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const was = fingers.get(event.pointerId);
      if (!was) return;
      const now = [event.offsetX, event.offsetY], [dx, dy] = [now[0] - was[0], now[1] - was[1]], tall = canvas.clientHeight;
      travelled += Math.hypot(dx, dy);
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1], apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
        move(dx / 2 / tall, dy / 2 / tall);
        zoom(Math.max(apart(was), 1) / Math.max(apart(now), 1));
      } else if (travelled > CLICK_PX && fingers.size === 1) {
        if (event.buttons & 2 || event.shiftKey) move(dx / tall, dy / tall);
        else orbit((3 * dx) / tall, (3 * dy) / tall);
      }
      fingers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => {
        if (name === "pointerup" && fingers.size === 1 && travelled <= CLICK_PX) pick(event.offsetX, event.offsetY);
        fingers.delete(event.pointerId);
      });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      // Within another page the wheel scrolls that page until the scene has been clicked.
      if (window !== window.top && document.activeElement !== canvas) return;
      event.preventDefault();
      zoom(Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0012)));
    }, { passive: false });

    // Keyboard
    const TURN = 0.12, MOVE = 0.06;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      const arrow = arrows[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (arrow && event.shiftKey) move(-MOVE * arrow[0], -MOVE * arrow[1]);
      else if (arrow) orbit(-TURN * arrow[0], -TURN * arrow[1]);
      else if (event.key === "+" || event.key === "=") zoom(0.87);
      else if (event.key === "-") zoom(1.15);
      else if (event.key === ",") step(-1);
      else if (event.key === ".") step(1);
      else if (event.key === "Home") go(home());
      else if (event.key === "Enter") through();
      else return;
      event.preventDefault();
    });

    // Tools
    const press = (id, pressed) => byId(id).setAttribute("aria-pressed", pressed);
    const toggled = (id) => {
      const pressed = byId(id).getAttribute("aria-pressed") !== "true";
      press(id, pressed);
      return pressed;
    };
    byId("home").addEventListener("click", () => go(home()));
    byId("above").addEventListener("click", () =>
      go({ ...home(), elevation: STEEPEST, azimuth: -Math.PI / 2, distance: 1.05 * fit() }));
    byId("through").addEventListener("click", through);
    byId("turn").addEventListener("click", () => { leave(); turning = toggled("turn"); draw(); });
    for (const id of ["cameras", "tint", "walls"]) byId(id).addEventListener("click", () => { toggled(id); show(); });
    byId("height").addEventListener("click", () => paint(toggled("height")));
    byId("height").hidden = !data.coloured;
    const none = data.pyramids.every((corners) => !corners);
    byId("cameras").hidden = byId("through").hidden = none;
    const tall = Math.max(high.z - low.z, 1e-6);
    const cut = () => {
      const share = +byId("cut").value / 100;
      uniforms.cut.value = share >= 1 ? 1e9 : low.z + share * tall;
      byId("cut-at").textContent = share >= 1 ? "off" : `${(share * tall).toFixed(1)} m`;
      draw();
    };
    byId("cut").value = Math.floor((100 * (data.cut - low.z)) / tall);
    byId("cut").addEventListener("input", cut);
    byId("size").addEventListener("input", (event) => {
      uniforms.size.value = (FULL * spacing * event.target.value) / 100;
      draw();
    });

    function fitCanvas() {
      const { width, height } = byId("stage").getBoundingClientRect();
      if (!width || !height) return;
      renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
      renderer.setSize(width, height, false);
      camera.aspect = width / height;
      if (!eye) eye = home();
      draw();
    }
    fitCanvas();
    new ResizeObserver(fitCanvas).observe(byId("stage"));
    dark.addEventListener("change", show);
    cut();
    return { show };
  }

  let drawn = { show() {} };
  try {
    drawn = start(byId("canvas"));
  } catch (error) {
    console.warn(`no 3D: ${error}`);
    for (const id of ["canvas", "tools", "hint"]) byId(id).hidden = true;
    byId("sorry").hidden = false;
  }
  rank(0);
})();
