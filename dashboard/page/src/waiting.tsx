// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { useState } from 'preact/hooks'
import { State, Waiting as Group } from './api'
import { age, plural } from './format'

const titles: Record<string, string> = {
  Refused: 'No place', Invalid: 'Cannot be planned for', Deferred: 'Left to another scheduler', Unseen: 'Not decided yet', OnMachine: 'On a machine that is being made', OnNode: 'On a node that exists or is being made',
}

// Waiting are the pods without a node, by the reason.
export function Waiting(p: { s: State }) {
  const list = p.s.waiting
  if (list.length === 0) return <p class="empty">No pod waits.</p>
  return (
    <>
      <p class="lead">{plural(p.s.pods.pending, 'pod')} wait: <b class={p.s.pods.refused ? 'bad' : ''}>{p.s.pods.refused} refused</b>, {p.s.pods.assigned} have a place.</p>
      {list.map((w) => <One key={w.outcome + w.reason + w.node} w={w} now={p.s.time} />)}
    </>
  )
}

function One(p: { w: Group; now: string }) {
  const w = p.w
  const [all, setAll] = useState(false)
  const most = Math.max(1, ...(w.stages ?? []).map((s) => s.offerings))
  const bad = w.outcome === 'Refused' || w.outcome === 'Invalid'
  return (
    <article class={'box wait' + (bad ? ' badline' : '')}>
      <header>
        <h2>{plural(w.count, 'pod')}: {titles[w.outcome] ?? w.outcome}</h2>
        {w.code && <span class="tag">{w.code}</span>}
        <span class="dim">for up to {age(w.since, p.now)}</span>
      </header>
      <p>{w.reason}</p>
      {!!w.stages?.length && (
        <>
          <h3>What each constraint left</h3>
          <table class="funnel">
            <thead><tr><th>Constraint</th><th>Offerings left</th><th class="num">Nodes</th><th>Detail</th></tr></thead>
            <tbody>
              {w.stages.map((s, i) => (
                <tr key={i} class={s.offerings === 0 ? 'zero' : ''}>
                  <td>{s.name}</td>
                  <td><svg class="meter small" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="8" /><rect class="bar" width={(100 * s.offerings) / most} height="8" /></svg> {s.offerings}</td>
                  <td class="num">{s.nodes}</td>
                  <td class="dim">{s.detail}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
      {!!w.nearest?.length && (
        <>
          <h3>Nearest misses: what would help</h3>
          <ul>{w.nearest.slice(0, 4).map((m, i) => <li key={i}><b>{m.what}</b> <span class="tag">{m.reason}</span> {m.detail}</li>)}</ul>
        </>
      )}
      <p class="pods">{(all ? w.pods : w.pods.slice(0, 6)).join(', ')}
        {w.pods.length > 6 && <> <button class="link" onClick={() => setAll(!all)}>{all ? 'fewer' : `and ${w.count - 6} more`}</button></>}
      </p>
    </article>
  )
}
