/* <script async src="https://collector/t.js" data-write-key="wk_..."></script>
   data-host: another collector; data-auto="off": no page view by itself; data-spa: one per route.
   Early:(window.opportune = window.opportune || []).push(["track", name, properties]) */
(() => {
  const tag = document.currentScript, data = tag.dataset, early = window.opportune
  if (early && early.track) return
  const url = (data.host || new URL(tag.src).origin).replace(/\/$/, '') + '/v1/batch'
  const BYTES = 48e3, EVENTS = 50, KEPT = 200, WAIT = 300
  const memory = {}
  let queue = [], flying = 0, tries = 0, timer = 0, last = ''

  const uuid = () => crypto.randomUUID ? crypto.randomUUID()
    : [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('')

  // localStorage, else a cookie, else this page only.
  const load = name => {
    try { const v = localStorage.getItem(name); if (v) return v } catch (e) {}
    try { return decodeURIComponent(document.cookie.match('(?:^|; )' + name + '=([^;]*)')[1]) } catch (e) {}
    return memory[name] || ''
  }
  const save = (name, value) => {
    memory[name] = value
    try { localStorage.setItem(name, value); return } catch (e) {}
    try {
      if (value.length < 500) document.cookie = name + '=' + encodeURIComponent(value) + '; path=/; samesite=lax; max-age='
        + (value && 31536000)
    } catch (e) {}
  }
  const anonymousId = () => {
    let id = load('opp_a')
    if (!id) save('opp_a', id = uuid())
    return id
  }

  const call = (type, more) => {
    const event = {
      type, messageId: uuid(), timestamp: new Date().toISOString(), anonymousId: anonymousId(),
      userId: load('opp_u') || undefined, ...more,
      context: {
        page: { path: location.pathname, url: location.href, referrer: document.referrer, title: document.title },
        locale: navigator.language, timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      },
    }
    queue.push(event)
    if (queue.length > KEPT) queue.splice(flying, queue.length - KEPT)
    later(tries ? 0 : WAIT)
  }
  const later = ms => { if (ms && !timer && !flying) timer = setTimeout(send, ms) }

  // The oldest events that fit one request.
  const pack = from => {
    const batch = []
    let size = 0
    for (const event of queue.slice(from, from + EVENTS)) {
      size += JSON.stringify(event).length
      if (batch.length && size > BYTES) break
      batch.push(event)
    }
    return batch
  }
  const body = batch => JSON.stringify({ writeKey: data.writeKey, sentAt: new Date().toISOString(), batch })

  // Text, no header of our own: no preflight. An event leaves the queue when it is answered for.
  const send = async () => {
    clearTimeout(timer)
    timer = 0
    if (flying || !queue.length) return
    const batch = pack(0)
    flying = batch.length
    let wait = 0
    try {
      const answer = await fetch(url, { method: 'POST', body: body(batch), keepalive: true, credentials: 'omit' })
      if (answer.status == 429 || answer.status > 499) wait = answer.headers.get('Retry-After') * 1e3 || 1
    } catch (e) { wait = 1 }
    if (wait) wait = Math.max(wait, Math.min(6e4, 1e3 * 2 ** tries++) * (0.5 + Math.random() / 2))
    else { queue.splice(0, flying); tries = 0 }
    flying = 0
    if (queue.length) later(wait || 1)
  }

  // What is under way goes on by keepalive, the rest as beacons, or waits in the store for the next page.
  const leave = () => {
    let from = flying
    while (!tries && from < queue.length) {
      const batch = pack(from)
      if (!navigator.sendBeacon?.(url, body(batch))) break
      queue.splice(from, batch.length)
    }
    if (queue.length > from) save('opp_q', JSON.stringify(queue.splice(from)))
  }
  const resume = () => {
    let kept = []
    try { kept = JSON.parse(load('opp_q') || '[]') } catch (e) {}
    if (kept.length) { save('opp_q', ''); queue.push(...kept); later(WAIT) }
  }
  addEventListener('pagehide', leave)
  addEventListener('pageshow', event => event.persisted && resume())
  document.addEventListener('visibilitychange', () => { if (document.hidden && !tries) send() })

  const api = {
    track: (event, properties) => call('track', { event, properties }),
    identify: (userId, traits) => {
      if (userId) save('opp_u', String(userId))
      call('identify', { userId: load('opp_u') || undefined, traits })
    },
    page: (name, properties) => { last = location.href; call('page', { name, properties }) },
    reset: () => { save('opp_u', ''); save('opp_a', '') },
    anonymousId, flush: send,
    push: args => api[args[0]](...args.slice(1)),
  }
  window.opportune = api
  resume()
  if (data.auto != 'off') api.page()
  if (Array.isArray(early)) early.forEach(api.push)
  if ('spa' in data) {
    const moved = () => location.href != last && api.page()
    const push = history.pushState
    history.pushState = function () { push.apply(this, arguments); moved() }
    addEventListener('popstate', moved)
  }
})()
