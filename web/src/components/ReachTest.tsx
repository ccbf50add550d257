import { useCallback, useEffect, useRef, useState } from 'react'
import { Icon } from '../icons'
import { runTest, ways, type Finding, type Findings } from '../reach'
import { findingLine, reportOf, verdictOf, wayTitles } from '../reachwords'

/** "Why can't I join?": tests what the attendee's network lets through, and says it. */
export function ReachTest({ origin, onBack }: { origin: string; onBack: () => void }) {
  const [found, setFound] = useState<Finding[]>([])
  const [result, setResult] = useState<Findings>()
  const heading = useRef<HTMLHeadingElement>(null)
  const run = useRef(0)

  const start = useCallback(() => {
    const mine = ++run.current
    const current = () => mine === run.current
    setFound([])
    setResult(undefined)
    void runTest(origin, (f) => current() && setFound((list) => [...list, f])).then((r) => current() && setResult(r))
  }, [origin])

  useEffect(() => {
    start()
    heading.current?.focus()
    return () => void run.current++
  }, [start])

  const verdict = result && verdictOf(result)
  return (
    <main className="reach">
      <h1 ref={heading} tabIndex={-1}>
        Test your connection
      </h1>
      <p className="lead">Which ways to the meeting does your network let through? This takes up to ten seconds. Nothing is recorded, and your camera and microphone are not used.</p>
      <ol className="reach-ways" aria-busy={!result}>
        {ways.map((way) => {
          const f = found.find((x) => x.way === way)
          return (
            <li key={way} data-way={way} data-outcome={f?.outcome ?? 'testing'}>
              <span>{wayTitles[way]}</span>
              <strong>{f ? findingLine(f) : 'testing…'}</strong>
            </li>
          )
        })}
      </ol>
      <div role="status">
        {verdict && (
          <div className={`reach-verdict ${verdict.able === false ? 'bad' : 'good'}`} data-testid="verdict">
            <Icon name={verdict.able === false ? 'warn' : 'pin'} />
            <div>
              <h2>{verdict.title}</h2>
              <p>{verdict.text}</p>
            </div>
          </div>
        )}
      </div>
      {result && verdict && <ForIT text={reportOf(result, new Date())} needed={verdict.mend.length > 0} />}
      <p className="reach-buttons">
        <button type="button" className="button primary" onClick={onBack}>
          Back
        </button>
        <button type="button" className="button" onClick={start} disabled={!result}>
          Test again
        </button>
      </p>
    </main>
  )
}

/** What to hand to those who run the network. It names nobody. */
function ForIT({ text, needed }: { text: string; needed: boolean }) {
  const [copied, setCopied] = useState('')
  const area = useRef<HTMLTextAreaElement>(null)
  async function copy() {
    try {
      await navigator.clipboard.writeText(text)
      setCopied('Copied.')
    } catch {
      area.current?.select() // without TLS, or without leave, there is no clipboard
      setCopied('Press Ctrl+C to copy the marked text.')
    }
  }
  return (
    <section className="reach-it" aria-labelledby="reach-it">
      <h2 id="reach-it">For your IT department</h2>
      <p className="quiet">{needed ? 'Send them this text. ' : 'If somebody asks. '}It says nothing about you.</p>
      <textarea ref={area} readOnly rows={Math.min(16, text.split('\n').length)} value={text} aria-label="Result of the test" />
      <p className="reach-buttons">
        <button type="button" className="button small" onClick={() => void copy()}>
          Copy
        </button>
        <span role="status">{copied}</span>
      </p>
    </section>
  )
}
