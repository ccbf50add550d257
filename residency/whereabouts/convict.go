package whereabouts

import (
	"slices"

	"github.com/domicile/domicile/residency"
)

// convict finds the nodes that at least two others doubt who are not doubted
// themselves. Direct are those whom this node doubts by what it saw itself:
// their word counts for nothing. Believed are those for whose place the
// operator vouches.
//
// Of an accuser and the accused one is wrong, and nobody sees from outside
// which. A liar that is found out accuses everybody who is near it, but it is
// one, while they are many: so the most accused go first, and their word with
// them. Then whoever was doubted by liars alone is set free.
func convict(accusers map[residency.NodeName][]residency.NodeName, direct map[residency.NodeName]bool,
	believed func(residency.NodeName) bool) map[residency.NodeName][]residency.NodeName {
	guilty := map[residency.NodeName]bool{}
	credible := func(of residency.NodeName) (by []residency.NodeName) {
		for _, a := range accusers[of] {
			if believed(a) || !guilty[a] && !direct[a] {
				by = append(by, a)
			}
		}
		return by
	}
	// Each round frees or convicts somebody for good in all but made-up cases;
	// those end after as many rounds as there are accused.
	for range len(accusers) + 1 {
		for mostAccused(accusers, guilty, credible) {
		}
		if !release(guilty, credible) {
			break
		}
	}
	out := map[residency.NodeName][]residency.NodeName{}
	for of := range guilty {
		if by := credible(of); len(by) >= witnesses {
			out[of] = by
		}
	}
	return out
}

// mostAccused makes guilty those whom the most credible nodes accuse, two at
// least, and reports whether there were any.
func mostAccused(accusers map[residency.NodeName][]residency.NodeName, guilty map[residency.NodeName]bool,
	credible func(residency.NodeName) []residency.NodeName) bool {
	most := witnesses
	var worst []residency.NodeName
	for of := range accusers {
		switch n := len(credible(of)); {
		case guilty[of] || n < most:
		case n > most:
			most, worst = n, []residency.NodeName{of}
		default:
			worst = append(worst, of)
		}
	}
	for _, of := range worst {
		guilty[of] = true
	}
	return len(worst) > 0
}

// release frees those whom fewer than two credible nodes accuse.
func release(guilty map[residency.NodeName]bool, credible func(residency.NodeName) []residency.NodeName) bool {
	var free []residency.NodeName
	for of := range guilty {
		if len(credible(of)) < witnesses {
			free = append(free, of)
		}
	}
	slices.Sort(free)
	for _, of := range free {
		delete(guilty, of)
	}
	return len(free) > 0
}
