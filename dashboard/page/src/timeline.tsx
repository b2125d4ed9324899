// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { useEffect, useRef, useState } from 'preact/hooks'
import uPlot from 'uplot'
import { Decision, get, Timeline as Data } from './api'
import { clock, moment, plural, short, usd } from './format'
import { useSize } from './parts'

const spans: [string, number][] = [['1 h', 1], ['6 h', 6], ['24 h', 24], ['7 d', 168]]

// Timeline is what was decided, and the way back to any recorded moment.
export function Timeline(p: { time: string; theme: string; travel: (at: string) => void }) {
  const [hours, setHours] = useState(24)
  const [data, setData] = useState<Data>()
  const [failed, setFailed] = useState('')
  const [kind, setKind] = useState('')
  const minute = p.time.slice(0, 16)
  useEffect(() => {
    let gone = false
    const to = +new Date(p.time)
    get<Data>(`/api/v1/timeline?from=${Math.round(to - hours * 3600e3)}&to=${to + 1000}`).then((d) => { if (!gone) { setData(d); setFailed('') } }, (e: Error) => { if (!gone) setFailed(e.message) })
    return () => { gone = true }
  }, [hours, minute])
  const list = (data?.decisions ?? []).filter((d) => !kind || d.kind === kind)
  return (
    <>
      <div class="tools">
        <div role="group" aria-label="Time span">{spans.map(([name, h]) => <button key={h} aria-pressed={h === hours} onClick={() => setHours(h)}>{name}</button>)}</div>
        <label>Show <select value={kind} onChange={(e) => setKind((e.target as HTMLSelectElement).value)}>
          <option value="">all decisions</option><option value="ScaleUp">purchases</option><option value="Removal">removals</option><option value="Gone">machines gone</option>
        </select></label>
      </div>
      {failed && <p class="bad">{failed}</p>}
      <Curves data={data} theme={p.theme} travel={p.travel} />
      {list.length === 0 && <p class="empty">Nothing was decided in this time.</p>}
      <ol class="decisions">{list.map((d) => <One key={d.id} d={d} travel={p.travel} />)}</ol>
    </>
  )
}

function Curves(p: { data?: Data; theme: string; travel: (at: string) => void }) {
  const [ref, size] = useSize<HTMLDivElement>()
  const plot = useRef<HTMLDivElement>(null)
  const points = p.data?.points ?? []
  const [at, setAt] = useState(points.length - 1)
  useEffect(() => setAt(points.length - 1), [points.length])
  useEffect(() => {
    if (!plot.current || !size.width || points.length < 2) return
    const css = getComputedStyle(document.documentElement)
    const c = (n: string) => css.getPropertyValue('--' + n).trim()
    const long = +new Date(points[points.length - 1].t) - +new Date(points[0].t) > 26 * 3600e3
    const times = (_u: uPlot, v: number[]) => v.map((x) => (long ? new Date(x * 1000).toLocaleDateString('en', { weekday: 'short', day: 'numeric' }) + ' ' : '') + clock(x * 1000))
    const axis = { stroke: c('dim'), grid: { stroke: c('line'), width: 1 }, ticks: { stroke: c('line') }, font: '12px system-ui' }
    const u = new uPlot({
      width: size.width - 34, height: 220, cursor: { y: false }, legend: { show: true },
      scales: { usd: { range: (_u, _min, max) => [0, Math.max(max, 0.01) * 1.1] }, n: { range: (_u, _min, max) => [0, Math.max(max, 1) * 1.1] } },
      axes: [{ ...axis, values: times, incrs: [60, 300, 900, 3600, 10800, 21600, 86400] }, { ...axis, scale: 'usd', values: (_u, v) => v.map((x) => '$' + x) }, { ...axis, scale: 'n', side: 1, grid: { show: false } }],
      series: [{ label: 'time', value: (_u, v) => (v == null ? '' : moment(v * 1000)) }, { label: '$/h', scale: 'usd', stroke: c('accent'), width: 2, points: { show: false }, value: (_u, v) => (v == null ? '' : usd(v)) },
        { label: 'bound', scale: 'usd', stroke: c('good'), width: 1.5, points: { show: false }, dash: [5, 4], value: (_u, v) => (v == null ? '' : usd(v)) },
        { label: 'nodes', scale: 'n', stroke: c('dim'), width: 1, points: { show: false } }, { label: 'pending pods', scale: 'n', stroke: c('moving-line'), width: 1, points: { show: false } }],
    }, [points.map((x) => +new Date(x.t) / 1000), points.map((x) => x.usd), points.map((x) => x.bound || null), points.map((x) => x.nodes), points.map((x) => x.pending)], plot.current)
    return () => u.destroy()
  }, [points, size.width, p.theme])
  const chosen = points[Math.min(at, points.length - 1)]
  return (
    <div class="box" ref={ref}>
      {points.length < 2 ? <p class="dim">A curve appears when a few minutes have been recorded.</p> : (
        <>
          <div ref={plot} />
          <label class="travel">Look back <input type="range" min={0} max={points.length - 1} value={at} onInput={(e) => setAt(+(e.target as HTMLInputElement).value)} aria-valuetext={chosen && moment(chosen.t)} />
            {chosen && <span>{moment(chosen.t)}: {usd(chosen.usd)}/h, {plural(chosen.nodes, 'node')} <button onClick={() => p.travel(chosen.t)}>Show the map</button></span>}
          </label>
        </>
      )}
    </div>
  )
}

function One(p: { d: Decision; travel: (at: string) => void }) {
  const d = p.d
  const saved = d.before - d.after
  return (
    <li class={'box decision ' + d.kind}>
      <header>
        <time dateTime={d.time} title={moment(d.time)}>{clock(d.time)}</time>
        <b>{d.text}</b>
        <span class={saved > 0 ? 'good' : ''}>{saved > 0 ? '−' : '+'}{usd(Math.abs(saved), 3)}/h</span>
        <button class="link" onClick={() => p.travel(d.time)} aria-label={'Show the map at ' + moment(d.time)}>map</button>
      </header>
      <details>
        <summary>{usd(d.before, 3)} → {usd(d.after, 3)} per hour · {plural(d.podsMoved, 'pod')}{d.refused ? ` · ${d.refused} refused` : ''}</summary>
        {!!d.machines?.length && (
          <table>
            <thead><tr><th>Machine</th><th>Size</th><th>Zone</th><th class="num">$/h</th><th class="num">Pods</th><th>Next best</th></tr></thead>
            <tbody>
              {d.machines.slice(0, 50).map((m, i) => (
                <tr key={i}><td>{m.claim || 'not created'}</td><td>{short(m.size)} {m.capacityType}</td><td>{m.zone}</td><td class="num">{usd(m.usdPerHour, 4)}</td><td class="num">{m.pods}</td>
                  <td class="dim">{m.alternatives?.slice(0, 2).map((a) => `${short(a.size)} ${a.zone ?? ''} ${usd(a.usdPerHour, 4)}`).join(', ')}</td></tr>
              ))}
            </tbody>
          </table>
        )}
        {!!d.nodes?.length && <p class="pods">{d.nodes.join(', ')}</p>}
      </details>
    </li>
  )
}
