// Draws what /st2v/look says: the video, its chunks, its branches. The page keeps only which of them is looked at.
(() => {
  'use strict';
  const EVERY = 700; // milliseconds
  const address = new URLSearchParams(location.search);
  const at = { session: address.get('session') || '', branch: address.get('branch') || '', chunk: -1 };
  const find = (id) => document.getElementById(id);
  let player, seen = {}, polling = null, looks = 0;

  window.st2v = {
    here: () => [at.session, at.branch, at.chunk].join('/'),
    go: (to) => {
      if (to) select(...to.split('/'));
      else look();
    },
  };

  function select(session, branch) {
    const other = session !== at.session || branch !== at.branch;
    Object.assign(at, { session, branch, chunk: other ? -1 : at.chunk });
    const query = new URLSearchParams({ session, branch });
    history.replaceState(null, '', `?${query}`);
    look();
  }

  function make(tag, name, text, parent) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  function path(kind, ...parts) {
    return ['/st2v', kind, ...parts.map(encodeURIComponent)].join('/');
  }

  // Calls draw(parent) if what it depends on has changed since the last time.
  function redraw(id, values, draw) {
    const key = JSON.stringify(values);
    if (seen[id] === key) return;
    seen[id] = key;
    const parent = find(id), { scrollLeft } = parent;
    parent.replaceChildren();
    draw(parent);
    parent.scrollLeft = scrollLeft;
  }

  // ---- the video: pieces of chunks, one after the other in one source, so that it plays on while it grows

  class Player {
    constructor(video) {
      this.video = video;
      this.key = this.run = null;
    }

    show(key, pieces, fps, growing) {
      const same = key === this.key && this.urls.every((url, number) => pieces[number] && pieces[number].url === url);
      Object.assign(this, { pieces, fps, growing });
      if (!same) this.begin(key);
      this.pump(this.run);
    }

    begin(key) {
      const from = key && this.key && key.split('/')[0] === this.key.split('/')[0] ? this.video.currentTime : 0;
      const Source = window.ManagedMediaSource || window.MediaSource;
      const run = { source: new Source(), buffer: null, busy: false, from };
      Object.assign(this, { key, run, urls: [] });
      this.video.disableRemotePlayback = true;
      this.video.src = URL.createObjectURL(run.source);
      run.source.addEventListener('sourceopen', () => {
        if (run.buffer) return;
        run.buffer = run.source.addSourceBuffer('video/mp4; codecs="avc1.640028"');
        this.pump(run);
      });
    }

    // While the next chunk is made, what is there is played again.
    again() {
      const { video, growing } = this, { buffered } = video;
      if (!growing || video.paused || video.seeking || !buffered.length) return;
      if (video.currentTime > buffered.end(buffered.length - 1) - 0.05) video.currentTime = 0;
    }

    async pump(run) {
      if (run.busy || !run.buffer) return;
      run.busy = true;
      try {
        while (run === this.run && this.urls.length < this.pieces.length) {
          const piece = this.pieces[this.urls.length];
          const answer = await fetch(piece.url);
          if (!answer.ok) throw new Error(await answer.text());
          const bytes = await answer.arrayBuffer();
          if (run !== this.run) return;
          run.buffer.timestampOffset = piece.start / this.fps;
          run.buffer.appendBuffer(bytes);
          await new Promise((resolve, reject) => {
            run.buffer.onupdateend = resolve;
            run.buffer.onerror = () => reject(new Error('this browser does not play the video'));
          });
          this.urls.push(piece.url);
          if (this.urls.length === 1) this.video.play().catch(() => {});
          if (run.from && run.buffer.buffered.length && run.buffer.buffered.end(0) > run.from) {
            this.video.currentTime = run.from;
            run.from = 0;
          }
        }
        if (run === this.run && !this.growing && run.source.readyState === 'open') run.source.endOfStream();
        tell('');
      } catch (error) {
        if (run === this.run) tell(error.message);
      } finally {
        run.busy = false;
      }
    }
  }

  function tell(message) {
    document.body.dataset.trouble = message ? 'yes' : '';
    if (message) find('state').textContent = message;
  }

  // ---- what is drawn

  function draw(found) {
    document.body.dataset.shows = !at.session ? 'nothing' : found.error ? 'error' : 'video';
    redraw('videos', [found.videos, at.session], (list) => drawVideos(list, found.videos));
    if (found.error) find('state').textContent = found.error;
    if (!found.branch) {
      document.body.dataset.doing = found.error ? 'failed' : '';
      return;
    }
    const branch = found.branch;
    at.branch = branch.name;
    if (at.chunk >= branch.chunks.length) at.chunk = -1;
    const made = branch.chunks.filter((chunk) => chunk.id).length;
    Object.assign(document.body.dataset, {
      doing: branch.doing,
      failed: branch.error ? 'yes' : '',
      chosen: at.chunk >= 0 && at.chunk <= made ? 'chunk' : '',
      made: made ? 'some' : 'none',
    });
    find('screen').style.setProperty('--wide', found.size[1] / found.size[0]);
    find('state').textContent = branch.error || inWords(branch, made, found.fps);
    const progress = branch.progress;
    const share = !progress ? 0 : progress.chunk === null ? progress.step / progress.steps
      : (progress.chunk + progress.step / progress.steps) / branch.chunks.length;
    find('bar').firstElementChild.style.width = `${100 * share}%`;
    redraw('notes', branch.notes || [], (list) => (branch.notes || []).forEach((note) => make('li', '', note, list)));
    drawPreview(branch);
    redraw('timeline', [at, branch.given, branch.chunks, progress && progress.chunk],
      (row) => drawTimeline(row, branch, found.fps));
    showWork(branch, progress);
    redraw('chunk', [at.chunk, branch.chunks[at.chunk]], (line) => drawChunk(line, branch));
    redraw('links', [at, made, branch.enhanced, branch.num_frames], (line) => drawLinks(line, branch, made));
    redraw('tree', [found.tree, at], (tree) => drawTree(tree, found.tree));
    player.show(`${at.session}/${branch.name}`, pieces(branch), found.fps, ['making', 'pausing', 'waiting'].includes(branch.doing));
  }

  function inWords(branch, made, fps) {
    const progress = branch.progress, all = branch.chunks.length;
    const seconds = (branch.num_frames / fps).toFixed(1);
    return {
      done: `${branch.num_frames} frames, ${seconds} s`,
      stopped: `${made} of ${all} chunks are made`,
      pausing: 'Pausing at the next step',
      waiting: branch.before === 1 ? 'Waiting: another video has its turn' : `Waiting: ${branch.before} videos come first`,
      enhancing: progress && progress.step ? `Enhancing, step ${progress.step} of ${progress.steps}`
        : 'Enhancing: reading and compiling',
      making: progress ? `Making chunk ${progress.chunk}, step ${progress.step} of ${progress.steps}; the last is chunk ${all - 1}`
        : 'Starting: programs are loaded or compiled',
    }[branch.doing];
  }

  function pieces(branch) {
    const found = [];
    let start = 0;
    if (branch.given) {
      found.push({ url: path('given', at.session, branch.name, `${branch.given.id}.mp4`), start });
      start += branch.given.frames;
    }
    branch.chunks.forEach((chunk, number) => {
      if (chunk.id) found.push({ url: ofChunk(branch, chunk, number, '.mp4'), start });
      start += chunk.frames;
    });
    return found;
  }

  function ofChunk(branch, chunk, number, ending) {
    return path('chunk', at.session, branch.name, number, chunk.id + ending);
  }

  function firstFrame(branch, number) {
    const before = branch.chunks.slice(0, number).reduce((sum, chunk) => sum + chunk.frames, 0);
    return before + (branch.given ? branch.given.frames : 0);
  }

  function drawVideos(list, videos) {
    if (!videos.length) make('p', 'hint', 'None yet.', list);
    for (const video of videos) {
      const button = make('button', `video ${video.doing}`, undefined, list);
      button.setAttribute('aria-current', video.name === at.session);
      make('span', 'dot', '', button).title = video.doing;
      make('span', 'text', video.prompt, button);
      make('span', 'name', video.name, button);
      button.onclick = () => select(video.name, 'main');
    }
  }

  function drawPreview(branch) {
    const picture = find('preview');
    picture.hidden = !branch.preview;
    if (branch.preview) {
      const url = `${path('preview', at.session, branch.name)}?n=${branch.preview}`;
      if (picture.getAttribute('src') !== url) picture.src = url;
    }
  }

  function drawTimeline(row, branch, fps) {
    if (branch.given) {
      const cell = make('div', 'cell given', undefined, row);
      cell.style.flexGrow = branch.given.frames;
      make('span', 'number', 'start', cell);
      make('img', '', undefined, cell).src = path('given', at.session, branch.name, `${branch.given.id}.png`);
    }
    branch.chunks.forEach((chunk, number) => {
      const works = branch.progress && branch.progress.chunk === number && !chunk.id;
      const cell = make('button', `cell ${chunk.id ? 'made' : works ? 'works' : 'planned'}`, undefined, row);
      cell.style.flexGrow = chunk.frames;
      cell.dataset.chunk = number;
      cell.title = `chunk ${number}: ${chunk.prompt}`;
      cell.setAttribute('aria-pressed', number === at.chunk);
      make('span', 'number', number, cell);
      if (chunk.id) make('img', '', undefined, cell).src = ofChunk(branch, chunk, number, '.png');
      else make('span', 'blank', '', cell);
      for (const [name, score] of Object.entries(chunk.scores || {})) {
        const shown = typeof score === 'number' ? score.toPrecision(2) : score;
        make('span', 'score', `${name} ${shown}`, cell);
      }
      cell.onclick = () => {
        at.chunk = number === at.chunk ? -1 : number;
        if (chunk.id) player.video.currentTime = firstFrame(branch, number) / fps + 0.01;
        look();
      };
    });
    make('div', 'head', '', row);
  }

  // Scrolls a long timeline to the chunk in work, once for each.
  function showWork(branch, progress) {
    const key = progress && progress.chunk !== null && `${at.session}/${branch.name}/${progress.chunk}`;
    if (!key || key === seen.work) return;
    seen.work = key;
    const row = find('timeline'), cell = row.querySelector(`[data-chunk="${progress.chunk}"]`);
    row.scrollLeft = cell.offsetLeft - row.clientWidth / 2;
  }

  // The line in the timeline at the frame that is shown; cells may be wider than their frames ask for.
  function moveHead() {
    const head = document.querySelector('#timeline .head');
    if (head && seen.fps) {
      const cells = [...document.querySelectorAll('#timeline .cell')];
      let frame = player.video.currentTime * seen.fps, x = 0;
      for (const cell of cells) {
        const frames = Number(cell.style.flexGrow);
        x = cell.offsetLeft + (Math.min(frame, frames) / frames) * cell.offsetWidth;
        frame -= frames;
        if (frame < 0) break;
      }
      head.style.left = `${x}px`;
    }
    player.again();
    requestAnimationFrame(moveHead);
  }

  function drawChunk(line, branch) {
    const chunk = branch.chunks[at.chunk];
    if (!chunk) return;
    const first = firstFrame(branch, at.chunk);
    const took = chunk.seconds ? `, made in ${chunk.seconds.toFixed(1)} s` : '';
    make('b', '', `Chunk ${at.chunk}`, line);
    make('span', '', ` frames ${first} to ${first + chunk.frames - 1}, seed ${chunk.seed}${took}: ${chunk.prompt}`, line);
  }

  function drawLinks(line, branch, made) {
    const link = (id, text, kind, query = '') => {
      const a = make('a', 'button', text, line);
      Object.assign(a, { id, href: path(kind, at.session, branch.name) + query });
      return a;
    };
    if (made) link('download', 'Download', 'download').download = '';
    if (branch.enhanced) {
      link('download-enhanced', 'Download enhanced', 'enhanced').download = '';
      link('watch-enhanced', 'Watch enhanced', 'enhanced', '?watch=true').target = '_blank';
    }
  }

  function drawTree(tree, rows) {
    if (rows.length < 2) return;
    make('h3', '', 'Branches', tree);
    const most = Math.max(...rows.map((row) => row.planned));
    const step = Math.max(3, Math.min(16, 160 / most)), high = 52, width = step * (most + 1);
    const box = make('div', 'rows', undefined, tree);
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    Object.entries({ width, height: high * rows.length }).forEach(([name, value]) => svg.setAttribute(name, value));
    const shape = (name, kind, values) => {
      const made = document.createElementNS('http://www.w3.org/2000/svg', name);
      made.setAttribute('class', kind);
      Object.entries(values).forEach(([key, value]) => made.setAttribute(key, value));
      svg.append(made);
    };
    const line = new Map(rows.map((row, number) => [row.name, number]));
    const x = (chunk) => step * (chunk + 0.5), y = (number) => high * (number + 0.5);
    rows.forEach((row, number) => {
      const chosen = row.name === at.branch ? 'chosen' : '';
      const from = row.parent === null ? 0 : Math.max(0, row.shared - 1);
      const up = row.parent === null ? number : line.get(row.parent);
      shape('path', chosen, { d: `M${x(from)} ${y(up)} L${x(from)} ${y(number)} L${x(row.planned - 1)} ${y(number)}` });
    });
    rows.forEach((row, number) => {
      for (let chunk = row.shared; chunk < row.planned; chunk++) {
        const kind = `${chunk < row.chunks ? 'made' : 'planned'} ${row.name === at.branch ? 'chosen' : ''}`;
        shape('circle', kind, { cx: x(chunk), cy: y(number), r: Math.min(5, step / 2 - 0.5) });
      }
    });
    box.append(svg);
    const names = make('div', 'names', undefined, box);
    for (const row of rows) {
      const button = make('button', `branch ${row.doing}`, undefined, names);
      button.dataset.branch = row.name;
      button.setAttribute('aria-current', row.name === at.branch);
      make('span', 'dot', '', button).title = row.doing;
      make('b', '', row.name, button);
      make('span', 'text', row.asked, button);
      button.onclick = () => select(at.session, row.name);
    }
  }

  // ---- looking again and again

  async function look() {
    clearTimeout(polling);
    const mine = ++looks;
    try {
      const answer = await fetch(`/st2v/look?${new URLSearchParams({ session: at.session, branch: at.branch })}`);
      if (!answer.ok) throw new Error(await answer.text());
      const found = await answer.json();
      if (mine !== looks) return; // something else was chosen meanwhile
      delete document.body.dataset.away;
      seen.fps = found.fps;
      draw(found);
    } catch (error) {
      if (mine !== looks) return;
      document.body.dataset.away = 'yes';
      find('state').textContent = 'The server does not answer. What was made is on its disk.';
    }
    polling = setTimeout(look, EVERY);
  }

  const waiting = setInterval(() => {
    if (!find('stage') || !find('tree') || !find('videos') || !find('links')) return; // gradio is not ready
    clearInterval(waiting);
    player = new Player(find('player'));
    find('player').loop = true;
    look();
    moveHead();
  }, 50);
})();
