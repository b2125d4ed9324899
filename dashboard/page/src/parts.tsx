// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

import { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { percent } from './format'

// Card is a figure with its name.
export function Card(p: { name: string; children: ComponentChildren; note?: ComponentChildren; tone?: string; id?: string }) {
  return (
    <div class={'card ' + (p.tone ?? '')}>
      <div class="name">{p.name}</div>
      <div class="figure" id={p.id}>{p.children}</div>
      {p.note !== undefined && <div class="note">{p.note}</div>}
    </div>
  )
}

// Meter is a bar with its value in words for screen readers.
export function Meter(p: { value: number; label: string; warn?: number }) {
  const v = Math.max(0, Math.min(1, p.value))
  return (
    <svg class={'meter' + (p.warn !== undefined && p.value >= p.warn ? ' warn' : '')} role="img" aria-label={`${p.label}: ${percent(p.value)}`} viewBox="0 0 100 8" preserveAspectRatio="none">
      <rect class="track" width="100" height="8" />
      <rect class="bar" width={v * 100} height="8" />
    </svg>
  )
}

// useSize returns the size of an element in CSS pixels.
export function useSize<T extends Element>() {
  const ref = useRef<T>(null)
  const [size, set] = useState({ width: 0, height: 0 })
  useLayoutEffect(() => {
    const el = ref.current
    if (!el) return
    const watch = new ResizeObserver(() => set({ width: el.clientWidth, height: el.clientHeight }))
    watch.observe(el)
    set({ width: el.clientWidth, height: el.clientHeight })
    return () => watch.disconnect()
  }, [])
  return [ref, size] as const
}

// VirtualList renders the rows in sight only. Arrow keys move, Enter opens.
export function VirtualList<T>(p: { items: T[]; row: number; label: string; id: (t: T) => string; render: (t: T) => ComponentChildren; open: (t: T) => void; head: ComponentChildren }) {
  const [ref, size] = useSize<HTMLDivElement>()
  const [top, setTop] = useState(0)
  const [active, setActive] = useState(0)
  const first = Math.max(0, Math.floor(top / p.row) - 4)
  const count = Math.ceil(size.height / p.row) + 8
  const go = (i: number) => {
    i = Math.max(0, Math.min(p.items.length - 1, i))
    setActive(i)
    const el = ref.current
    if (!el) return
    if (i * p.row < el.scrollTop) el.scrollTop = i * p.row
    if ((i + 1) * p.row > el.scrollTop + el.clientHeight) el.scrollTop = (i + 1) * p.row - el.clientHeight
  }
  const onKey = (e: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(size.height / p.row) - 1)
    const to: Record<string, number> = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: p.items.length - 1 }
    if (e.key in to) { e.preventDefault(); go(to[e.key]) }
    if (e.key === 'Enter' && p.items[active]) p.open(p.items[active])
  }
  return (
    <div class="list" role="table" aria-label={p.label} aria-rowcount={p.items.length}>
      <div class="head" role="row">{p.head}</div>
      <div class="rows" ref={ref} tabIndex={0} role="rowgroup" onKeyDown={onKey} onScroll={(e) => setTop((e.target as Element).scrollTop)}>
        <div style={{ height: p.items.length * p.row + 'px', position: 'relative' }}>
          {p.items.slice(first, first + count).map((it, k) => (
            <div key={p.id(it)} role="row" aria-rowindex={first + k + 1} class={'row' + (first + k === active ? ' active' : '')} style={{ top: (first + k) * p.row + 'px', height: p.row + 'px' }} onClick={() => { setActive(first + k); p.open(it) }}>
              {p.render(it)}
            </div>
          ))}
        </div>
      </div>
    </div>
  )
}

// Dialog is a panel at the side that Escape closes; focus goes to it and back.
export function Panel(p: { title: string; close: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLElement>(null)
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null
    ref.current?.focus()
    const key = (e: KeyboardEvent) => { if (e.key === 'Escape') p.close() }
    addEventListener('keydown', key)
    return () => { removeEventListener('keydown', key); before?.focus?.() }
  }, [])
  return (
    <aside class="panel" ref={ref} tabIndex={-1} role="dialog" aria-label={p.title}>
      <header><h2>{p.title}</h2><button onClick={p.close} aria-label="Close">✕</button></header>
      <div class="body">{p.children}</div>
    </aside>
  )
}
