package stock

func (s *solver) improve(work int64) {}
