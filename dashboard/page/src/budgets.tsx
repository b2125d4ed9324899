// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { State, Window } from './api'
import { clock, plural, usd } from './format'

const day = 24 * 3600e3

// Budgets shows what may be disrupted in the next 24 hours, and for which reason.
export function Budgets(p: { s: State }) {
  const start = +new Date(p.s.time)
  if (p.s.pools.length === 0) return <p class="empty">There is no NodePool.</p>
  return (
    <>
      {p.s.pools.map((pool) => {
        const reasons = [...new Set(pool.windows.map((w) => w.reason))]
        return (
          <section key={pool.name} class="box">
            <h2>{pool.name} {!pool.ready && <span class="tag Draining">not ready</span>}</h2>
            <p class="dim">{plural(pool.nodes, 'node')}, {usd(pool.usdPerHour)}/h · {pool.policy || 'no policy'}, consolidateAfter {pool.after}</p>
            {pool.problem && <p class="bad">{pool.problem}</p>}
            {reasons.map((r) => (
              <div class="windows" key={r}>
                <span class="reason">{r}</span>
                <Strip windows={pool.windows.filter((w) => w.reason === r)} start={start} pool={pool.name} />
                <span class="said">{words(pool.windows.filter((w) => w.reason === r))}</span>
              </div>
            ))}
            {reasons.length > 0 && (
              <div class="windows hours" aria-hidden="true"><span class="reason" /><span class="scale">{[0, 6, 12, 18, 24].map((h) => <i key={h}>{clock(start + h * 3600e3)}</i>)}</span><span class="said" /></div>
            )}
          </section>
        )
      })}
    </>
  )
}

function Strip(p: { windows: Window[]; start: number; pool: string }) {
  return (
    <svg class="strip" viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label={words(p.windows)}>
      {p.windows.map((w, i) => {
        const x = (1000 * Math.max(0, +new Date(w.from) - p.start)) / day
        const to = Math.min(1000, (1000 * (+new Date(w.to) - p.start)) / day)
        return <rect key={i} class={w.allowed === 0 ? 'closed' : w.allowed < 0 ? 'free' : 'open'} x={x} width={Math.max(0, to - x)} height="20"><title>{clock(w.from)}–{clock(w.to)}: {amount(w)}</title></rect>
      })}
    </svg>
  )
}

const amount = (w: Window) => (w.allowed < 0 ? 'no limit' : w.allowed === 0 ? 'none' : 'at most ' + w.allowed)
const words = (ws: Window[]) => (ws.length === 1 ? amount(ws[0]) + ' at a time' : ws.map((w) => `until ${clock(w.to)} ${amount(w)}`).join(', '))
