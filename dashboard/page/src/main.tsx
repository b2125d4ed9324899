// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { render } from 'preact'
import { useCallback, useEffect, useState } from 'preact/hooks'
import { follow, get, login, State, Status } from './api'
import { Budgets } from './budgets'
import { clock } from './format'
import { Map } from './map'
import { NodePanel } from './node'
import { Now } from './now'
import { Timeline } from './timeline'
import { Waiting } from './waiting'
import 'uplot/dist/uPlot.min.css'
import './app.css'

const views: [string, string][] = [['now', 'Now'], ['map', 'Map'], ['waiting', 'Waiting pods'], ['timeline', 'Timeline'], ['budgets', 'Budgets']]
const themes = ['auto', 'light', 'dark']

const current = () => views.find(([id]) => id === location.hash.slice(1))?.[0] ?? 'now'

function App() {
  const [state, setState] = useState<State>()
  const [status, setStatus] = useState<[Status, string]>(['connecting', ''])
  const [view, setView] = useState(current())
  const [node, setNode] = useState<string>()
  const [past, setPast] = useState<State>()
  const [notice, setNotice] = useState('')
  const [theme, setTheme] = useState(() => localStorage.getItem('theme') ?? 'auto')
  useEffect(() => follow(setState, (s, m) => setStatus([s, m ?? ''])), [])
  useEffect(() => {
    const hash = () => setView(current())
    addEventListener('hashchange', hash)
    return () => removeEventListener('hashchange', hash)
  }, [])
  useEffect(() => {
    document.documentElement.dataset.theme = theme
    localStorage.setItem('theme', theme)
  }, [theme])
  const next = useCallback(() => setTheme((t) => themes[(themes.indexOf(t) + 1) % themes.length]), [])
  useEffect(() => {
    const key = (e: KeyboardEvent) => {
      if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test((e.target as Element).tagName)) return
      const v = views[+e.key - 1]
      if (v) location.hash = v[0]
      if (e.key === 't') next()
    }
    addEventListener('keydown', key)
    return () => removeEventListener('keydown', key)
  }, [])
  const travel = async (at: string) => {
    setNotice('')
    try {
      const s = await get<State>('/api/v1/frame?at=' + +new Date(at))
      if (!s) { setNotice('Nothing was recorded at or before that time.'); return }
      setPast(s)
      location.hash = 'map'
    } catch (e) { setNotice(String(e instanceof Error ? e.message : e)) }
  }
  useEffect(() => { document.title = 'nap' + (state?.cluster ? ' · ' + state.cluster : '') }, [state?.cluster])

  if (status[0] === 'denied') return <Login message={status[1]} />
  return (
    <>
      <header class="top">
        <span class="brand">nap{state?.cluster && <small> {state.cluster}</small>}</span>
        <nav aria-label="Views">
          {views.map(([id, name], i) => (
            <a key={id} href={'#' + id} aria-current={view === id ? 'page' : undefined} title={`Key ${i + 1}`}>
              {name}{id === 'waiting' && !!state?.pods.refused && <span class="count">{state.pods.refused}</span>}
            </a>
          ))}
        </nav>
        <span class={'live ' + status[0]} role="status">{status[0] === 'live' ? `live · ${state ? clock(state.time) : ''}` : status[1] || status[0]}</span>
        <button onClick={next} title="Key t">theme: {theme}</button>
      </header>
      <main id="view" data-view={view}>
        {notice && <p class="past" role="status">{notice} <button onClick={() => setNotice('')}>OK</button></p>}
        {!state ? <p class="empty">Reading the cluster …</p>
          : view === 'now' ? <Now s={state} open={setNode} go={(v) => { location.hash = v }} />
          : view === 'map' ? <Map s={past ?? state} at={past?.time} back={() => setPast(undefined)} open={setNode} theme={theme} />
          : view === 'waiting' ? <Waiting s={state} />
          : view === 'timeline' ? <Timeline time={state.time} theme={theme} travel={travel} />
          : <Budgets s={state} />}
      </main>
      {node && state && <NodePanel key={node} name={node} at={state.time} close={() => setNode(undefined)} />}
    </>
  )
}

// Login asks for a token if the page was opened without the address of nap dashboard.
function Login(p: { message: string }) {
  const [token, setToken] = useState('')
  const [failed, setFailed] = useState(p.message)
  const submit = (e: Event) => { e.preventDefault(); login(token).catch((x: Error) => setFailed(x.message)) }
  return (
    <main class="login">
      <h1>nap</h1>
      <p role="status">{failed}</p>
      <form onSubmit={submit}>
        <label>Token that may list nodes <input type="password" autocomplete="off" value={token} onInput={(e) => setToken((e.target as HTMLInputElement).value)} /></label>
        <button>Log in</button>
      </form>
      <p class="dim">On a local Azure: <code>nap dashboard</code>. On a cluster: <code>kubectl create token NAME</code> for a service account that may list nodes, or the token of your own kubeconfig.</p>
    </main>
  )
}

render(<App />, document.getElementById('app')!)
