package logging

import (
	"io"
	"sync"
)

// A ring is the buffer: messages, the oldest of which go when their lines are more
// than size bytes with their ends. The zero ring keeps nothing.
type ring struct {
	size int
	used int
	kept []Entry
}

func (r *ring) add(e Entry) {
	if len(e.Line)+1 > r.size {
		return
	}
	r.kept = append(r.kept, e)
	r.used += len(e.Line) + 1
	r.trim()
}

func (r *ring) resize(size int) {
	r.size = size
	r.trim()
}

func (r *ring) trim() {
	n := 0
	for ; r.used > r.size; n++ {
		r.used -= len(r.kept[n].Line) + 1
		r.kept[n] = Entry{}
	}
	r.kept = r.kept[n:]
}

// A queue is messages that wait, the oldest first. Any number of goroutines may
// put, one takes.
type queue[T any] struct {
	wake chan struct{} // has room for one; something was put

	mu   sync.Mutex
	max  int
	list []T
	most int
	lost uint64
}

func newQueue[T any](limit int) *queue[T] { return &queue[T]{wake: make(chan struct{}, 1), max: limit} }

// put adds s, or counts it as lost.
func (q *queue[T]) put(s T) {
	q.mu.Lock()
	if len(q.list) >= q.max {
		q.lost++
		q.mu.Unlock()
		return
	}
	q.list = append(q.list, s)
	q.most = max(q.most, len(q.list))
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// first returns the oldest, which stays.
func (q *queue[T]) first() (oldest T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return oldest, false
	}
	return q.list[0], true
}

// done takes the oldest away.
func (q *queue[T]) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.list[:1])
	if q.list = q.list[1:]; len(q.list) == 0 {
		q.list = nil
	}
}

// resize sets how many may wait; those that do stay.
func (q *queue[T]) resize(limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.max = limit
}

// consoleRoom is how many lines wait for the console.
const consoleRoom = 1024

// A sink writes lines to a writer that may be slow.
type sink struct {
	w     io.Writer
	queue *queue[string]
	quit  chan struct{}
	done  chan struct{}
}

func newSink(w io.Writer) *sink {
	s := &sink{w, newQueue[string](consoleRoom), make(chan struct{}), make(chan struct{})}
	go s.run()
	return s
}

func (s *sink) put(line string) { s.queue.put(line) }

func (s *sink) run() {
	defer close(s.done)
	for quit := false; !quit; {
		select {
		case <-s.queue.wake:
		case <-s.quit:
			quit = true
		}
		for {
			line, ok := s.queue.first()
			if !ok {
				break
			}
			io.WriteString(s.w, line+"\n") // there is nobody to tell of an error
			s.queue.done()
		}
	}
}

// close writes what waits.
func (s *sink) close() {
	close(s.quit)
	<-s.done
}
